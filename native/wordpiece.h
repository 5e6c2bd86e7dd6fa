// BERT's tokeniser: texts to numbers of words and parts of words. What it does to a character is in unicode_tables.h; it
// does the same as the `tokenizers` library, with which tests compare it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace pocketbert {

class WordPiece {
public:
    struct Options {
        std::string unknown;  // what stands for words that the vocabulary cannot express
        std::string prefix;  // of tokens within a word
        int longest_word;  // characters; longer words are unknown
        bool clean_text;  // drops control characters
        bool handle_chinese_chars;  // an ideograph is a word
        bool strip_accents, lowercase;
    };
    struct AddedToken {
        std::string content;
        std::int32_t id;
        bool normalized;  // found in the text after it was normalised, as its content is
        bool takes_left, takes_right;  // the whitespace beside it
    };
    struct Token {
        std::int32_t id;
        std::int32_t start, end;  // in units of the text
    };

    // Tokens in UTF-8, a zero byte behind each; their numbers are their ids, and nothing has the number of an empty one.
    // Of equal ones the last counts. Throws std::invalid_argument.
    WordPiece(const char* tokens, std::size_t bytes, Options options);

    // Found wherever it is in a text, the longest of those that start at the same place.
    void add(const AddedToken& token);

    // The tokens of a text in UTF-16, without those that a model wants around it.
    std::vector<Token> tokenize(const std::uint16_t* text, std::int32_t length) const;

private:
    struct Character {
        char32_t code;
        std::int32_t start, end;  // of the text
    };
    using Characters = std::vector<Character>;
    struct Added {
        std::u32string content;
        std::int32_t id;
        bool takes_left, takes_right;
    };
    using AddedTokens = std::map<char32_t, std::vector<Added>>;  // by the first character

    Characters normalized(const Character* first, const Character* last) const;
    template <class Between>
    void split(const AddedTokens& added, const Character* first, const Character* last, std::vector<Token>& tokens,
               const Between& between) const;
    void add_words(const Character* first, const Character* last, std::vector<Token>& tokens) const;
    void add_word(const Character* first, const Character* last, std::vector<Token>& tokens) const;
    std::string_view token_of(std::size_t id) const;
    std::size_t slot_of(std::string_view token, std::uint32_t hash) const;

    Options options_;
    std::string tokens_;  // of the vocabulary, one behind the other
    std::vector<std::uint32_t> ends_;  // by id
    std::vector<std::int32_t> slots_;  // ids by hash; -1 where there is none
    std::size_t longest_token_ = 0;  // bytes
    std::int32_t unknown_id_;
    AddedTokens added_, added_normalized_;
};

}  // namespace pocketbert
