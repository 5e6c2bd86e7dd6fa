// Fuzzes the tokeniser: a vocabulary of pieces of several scripts, added tokens, and texts that are not always UTF-16.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "fuzz.h"

class WordPieceCase {
public:
    explicit WordPieceCase(Input in) : in_(in) {}

    void play() {
        std::string tokens;
        std::int32_t count = 0;
        for (unsigned more = in_.byte() % 60; more > 0; --more, ++count) {
            tokens += std::string(in_.one_in(3) ? "##" : "") + piece();
            tokens += '\0';
        }
        if (in_.byte() < 250) tokens += std::string("[UNK]") + '\0', ++count;
        if (in_.byte() < 3 && !tokens.empty()) tokens.pop_back();  // which ends in no zero then
        const std::vector<char> exact(tokens.begin(), tokens.end());
        pb_vocabulary vocabulary{};
        vocabulary.tokens = in_.byte() < 2 ? nullptr : exact.data();
        vocabulary.bytes = static_cast<std::int32_t>(exact.size());
        vocabulary.unknown = in_.byte() < 2 ? nullptr : in_.byte() < 4 ? "?" : "[UNK]";
        vocabulary.prefix = in_.byte() < 2 ? nullptr : in_.one_in(8) ? "" : "##";
        vocabulary.longest_word = in_.one_in(2) ? 100 : in_.number(1, 20);
        vocabulary.clean_text = in_.one_in(2), vocabulary.handle_chinese_chars = in_.one_in(2);
        vocabulary.strip_accents = in_.one_in(2), vocabulary.lowercase = in_.one_in(2);
        pb_wordpiece* made = nullptr;
        if (!took(pb_create_wordpiece(&vocabulary, &made))) return;
        const std::unique_ptr<pb_wordpiece, void (*)(pb_wordpiece*)> wordpiece(made, pb_free_wordpiece);
        for (unsigned more = in_.byte() % 4; more > 0; --more) {
            const std::string content = piece();
            const pb_added_token token{in_.byte() < 2 ? nullptr : content.c_str(), in_.number(0, 1000), in_.one_in(2),
                                       in_.one_in(2), in_.one_in(2)};
            took(pb_add_token(made, &token));
        }
        while (!in_.is_empty()) tokenize(made);
    }

private:
    // Letters, marks, spaces and signs of several scripts; some bytes are no UTF-8.
    std::string piece() {
        static constexpr const char* PARTS[] = {
            "a",
            "b",
            "E",
            "\xC3\xA9",
            "e\xCC\x81",
            "\xC4\xB0",
            "\xE4\xB8\xAD",
            "\xEA\xB0\x81",
            "\xD8\xA8\xD9\x8E",
            " ",
            "-",
            ".",
            "\xC2\xA0",
            "\xEF\xBF\xBD",
            "\xE2\x80\x8D",
            "\xF0\x9F\x98\x80",
            "\xF0\xA0\x80\x80",
            "[SEP]",
        };
        static constexpr const char* BROKEN[] = {"\x80",         "\xC3", "\xE4\xB8",
                                                 "\xF0\x9F\x98", "\xFF", "\xF4\x90\x80\x80"};
        std::string made;
        for (unsigned more = 1 + in_.byte() % 3; more > 0; --more)
            made += in_.byte() < 2 ? BROKEN[in_.byte() % std::size(BROKEN)] : PARTS[in_.byte() % std::size(PARTS)];
        return made;
    }

    void tokenize(const pb_wordpiece* wordpiece) {
        static constexpr std::uint16_t UNITS[] = {'a',   'b',    'E',    ' ',    '.',    0,      0xE9,   0x301,  0x345,
                                                  0x130, 0x4E2D, 0xAC01, 0x628,  0x64E,  0xA0,   0x200D, 0xFFFD, '[',
                                                  'S',   ']',    0xD83D, 0xDE00, 0xD840, 0xDC00, 0xDFFF, 0xD800};
        std::vector<std::uint16_t> text;
        for (unsigned units = in_.byte(); units > 0; --units) {
            const unsigned byte = in_.byte();
            text.push_back(byte < 240 ? UNITS[byte % std::size(UNITS)]
                                      : static_cast<std::uint16_t>(in_.byte() << 8 | byte));
        }
        text.shrink_to_fit();
        const auto length = static_cast<std::int32_t>(text.size());
        const std::int32_t claimed = in_.byte() < 2 ? -1 : length;
        std::int32_t count = -1;
        if (!took(pb_tokenize(wordpiece, text.data(), claimed, nullptr, 0, &count))) return;
        require(count >= 0 && count <= 3 * length, "a text has more tokens than it can have");
        const std::vector<pb_token> all = found(wordpiece, text, count, count);
        for (const pb_token& token : all)
            require(token.id >= 0 && token.start >= 0 && token.start < token.end && token.end <= length,
                    "a token is outside of its text");
        const std::vector<pb_token> first = found(wordpiece, text, count / 2, count);
        require(are_equal(first.data(), all.data(), first.size()), "the first tokens are others than those of all");
        if (in_.one_in(8)) {
            std::vector<pb_token> other;
            std::thread thread([&] { other = found(wordpiece, text, count, count); });
            const std::vector<pb_token> again = found(wordpiece, text, count, count);
            thread.join();
            require(are_equal(other.data(), all.data(), all.size()) && are_equal(again.data(), all.data(), all.size()),
                    "two threads find other tokens than one");
        }
        ++runs;
    }

    static bool are_equal(const pb_token* a, const pb_token* b, std::size_t count) {
        return count == 0 || std::memcmp(a, b, count * sizeof *a) == 0;
    }

    static std::vector<pb_token> found(const pb_wordpiece* wordpiece, const std::vector<std::uint16_t>& text,
                                       std::int32_t capacity, std::int32_t expected) {
        std::vector<pb_token> tokens(static_cast<std::size_t>(capacity));
        std::int32_t count = -1;
        const auto length = static_cast<std::int32_t>(text.size());
        require(
            pb_tokenize(wordpiece, text.data(), length, tokens.data(), capacity, &count) == PB_OK && count == expected,
            "a text has another number of tokens the second time");
        return tokens;
    }

    Input in_;
};
