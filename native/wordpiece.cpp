#include "wordpiece.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "unicode_tables.h"

namespace pocketbert {
namespace {

constexpr std::uint32_t HASH_BEGIN = 2166136261u;  // FNV-1a

std::uint32_t hash_on(std::uint32_t hash, char byte) { return (hash ^ static_cast<std::uint8_t>(byte)) * 16777619u; }

std::uint32_t hash_of(std::string_view text) {
    std::uint32_t hash = HASH_BEGIN;
    for (const char byte : text) hash = hash_on(hash, byte);
    return hash;
}

// ── characters ──

constexpr char32_t REPLACEMENT = 0xFFFD;  // for what is no character

void append_utf8(char32_t c, std::string& out) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | c >> 6), tail(0);
    } else if (c < 0x10000) {
        out += static_cast<char>(0xE0 | c >> 12), tail(6), tail(0);
    } else {
        out += static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0);
    }
}

std::u32string from_utf8(const std::string& text) {
    std::u32string found;
    for (std::size_t i = 0; i < text.size();) {
        const auto first = static_cast<std::uint8_t>(text[i++]);
        const int following = first < 0x80 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
        const bool is_broken = (first >= 0x80 && first < 0xC2) || first > 0xF4;
        char32_t c = following == 0 ? first : first & (0x3F >> following);
        for (int j = 0; j < following; ++j) {
            if (is_broken || i == text.size() || (static_cast<std::uint8_t>(text[i]) & 0xC0) != 0x80)
                throw std::invalid_argument("a token is not in UTF-8: " + text);
            c = c << 6 | (static_cast<std::uint8_t>(text[i++]) & 0x3F);
        }
        found += c;
    }
    return found;
}

// The value that a table of unicode_tables.h has from some character on.
template <std::size_t N>
std::uint32_t value_of(const std::uint32_t (&table)[N], int bits, char32_t c) {
    const std::uint32_t mask = (1u << bits) - 1;
    const auto after = std::upper_bound(table, table + N, static_cast<std::uint32_t>(c) << bits | mask);
    return after == table ? 0 : after[-1] & mask;
}

std::uint32_t kind_of(char32_t c) {
    static const auto& of_latin = *new std::vector<std::uint8_t>([] {  // most characters of most texts
        std::vector<std::uint8_t> kinds;
        for (char32_t latin = 0; latin < 256; ++latin)
            kinds.push_back(static_cast<std::uint8_t>(value_of(unicode::KINDS, 4, latin)));
        return kinds;
    }());
    return c < 256 ? of_latin[c] : value_of(unicode::KINDS, 4, c);
}

bool is_space(char32_t c) { return kind_of(c) & unicode::SPACE; }

std::uint32_t class_of(char32_t c) { return c < 0x300 ? 0 : value_of(unicode::CLASSES, 8, c); }

bool is_ideograph(char32_t c) {
    constexpr std::pair<char32_t, char32_t> BLOCKS[] = {
        {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
        {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F},
    };
    return std::any_of(std::begin(BLOCKS), std::end(BLOCKS),
                       [&](const auto& block) { return c >= block.first && c <= block.second; });
}

template <class Entry, std::size_t N>
const Entry* entry_of(const Entry (&table)[N], char32_t c) {
    const Entry* const at =
        std::lower_bound(table, table + N, c, [](const Entry& entry, char32_t code) { return entry.from < code; });
    return at != table + N && at->from == c ? at : nullptr;
}

char32_t lower_case(char32_t c) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    const auto* const table = unicode::LOWER_CASES;
    const auto* at = std::upper_bound(table, table + std::size(unicode::LOWER_CASES), c,
                                      [](char32_t code, const auto& run) { return code < run.first; });
    if (at == table) return c;
    --at;
    return c <= at->last && (c - at->first) % at->step == 0
               ? static_cast<char32_t>(static_cast<std::int32_t>(c) + at->by)
               : c;
}

// The parts of a character's canonical decomposition that are no marks which strip_accents takes off: body(part).
template <class Body>
void decompose(char32_t c, const Body& body) {
    constexpr char32_t SYLLABLES = 0xAC00, SYLLABLES_END = 0xD7A4, LEADING = 0x1100, VOWELS = 0x1161, TRAILING = 0x11A7;
    constexpr char32_t VOWEL_COUNT = 21, TRAILING_COUNT = 28;
    if (c < 0xC0) return body(c);
    if (c >= SYLLABLES && c < SYLLABLES_END) {
        const char32_t index = c - SYLLABLES;
        body(LEADING + index / (VOWEL_COUNT * TRAILING_COUNT));
        body(VOWELS + index / TRAILING_COUNT % VOWEL_COUNT);
        if (index % TRAILING_COUNT) body(TRAILING + index % TRAILING_COUNT);
    } else if (const auto* const single = entry_of(unicode::SINGLES, c)) {
        body(single->to);
    } else if (const auto* const several = entry_of(unicode::SEVERAL, c)) {
        for (const std::uint32_t part : several->to)
            if (part) body(part);
    } else {
        body(c);
    }
}

}  // namespace

// ── the vocabulary ──

WordPiece::WordPiece(const char* tokens, std::size_t bytes, Options options) : options_(std::move(options)) {
    if (bytes == 0 || tokens[bytes - 1] != 0)
        throw std::invalid_argument("every token of a vocabulary ends in a zero byte");
    if (bytes > (1u << 28)) throw std::invalid_argument("a vocabulary is too large");
    if (options_.longest_word < 1) throw std::invalid_argument("the longest word has at least one character");
    for (const char* at = tokens; at != tokens + bytes;) {
        const std::string token = at;
        from_utf8(token);
        at += token.size() + 1;
        tokens_ += token;
        ends_.push_back(static_cast<std::uint32_t>(tokens_.size()));
        longest_token_ = std::max(longest_token_, token.size());
    }
    std::size_t size = 16;
    while (size < 2 * ends_.size()) size *= 2;
    slots_.assign(size, -1);
    for (std::size_t id = 0; id < ends_.size(); ++id)
        if (const std::string_view token = token_of(id); !token.empty())
            slots_[slot_of(token, hash_of(token))] = static_cast<std::int32_t>(id);
    unknown_id_ = slots_[slot_of(options_.unknown, hash_of(options_.unknown))];
    if (unknown_id_ < 0)
        throw std::invalid_argument("the vocabulary has no token for unknown words: " + options_.unknown);
}

std::string_view WordPiece::token_of(std::size_t id) const {
    const std::size_t start = id ? ends_[id - 1] : 0;
    return std::string_view(tokens_).substr(start, ends_[id] - start);
}

// Where the id of a token is, or -1 if there is none.
std::size_t WordPiece::slot_of(std::string_view token, std::uint32_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = hash & mask;
    while (slots_[slot] >= 0 && token_of(static_cast<std::size_t>(slots_[slot])) != token) slot = (slot + 1) & mask;
    return slot;
}

void WordPiece::add(const AddedToken& token) {
    std::u32string content = from_utf8(token.content);
    if (token.normalized) {
        Characters characters;
        for (const char32_t c : content) characters.push_back({c, 0, 0});
        content.clear();
        for (const Character& c : normalized(characters.data(), characters.data() + characters.size()))
            content += c.code;
    }
    if (content.empty()) throw std::invalid_argument("an added token has no characters: " + token.content);
    std::vector<Added>& same_first = (token.normalized ? added_normalized_ : added_)[content[0]];
    const auto shorter = std::find_if(same_first.begin(), same_first.end(),
                                      [&](const Added& other) { return other.content.size() < content.size(); });
    same_first.insert(shorter, {content, token.id, token.takes_left, token.takes_right});
}

// ── a text ──

std::vector<WordPiece::Token> WordPiece::tokenize(const std::uint16_t* text, std::int32_t length) const {
    Characters characters;
    characters.reserve(static_cast<std::size_t>(length));
    for (std::int32_t i = 0; i < length;) {
        const std::int32_t start = i;
        char32_t c = text[i++];
        if (c >= 0xD800 && c < 0xE000) {
            const bool is_pair = c < 0xDC00 && i < length && text[i] >= 0xDC00 && text[i] < 0xE000;
            c = is_pair ? 0x10000 + ((c - 0xD800) << 10) + (text[i++] - 0xDC00u) : REPLACEMENT;
        }
        characters.push_back({c, start, i});
    }
    std::vector<Token> tokens;
    const Character* const first = characters.data();
    split(added_, first, first + characters.size(), tokens, [&](const Character* from, const Character* to) {
        const Characters clean = normalized(from, to);
        split(added_normalized_, clean.data(), clean.data() + clean.size(), tokens,
              [&](const Character* word, const Character* end) { add_words(word, end, tokens); });
    });
    return tokens;
}

// Finds added tokens, and calls between(first, last) for what is around them.
template <class Between>
void WordPiece::split(const AddedTokens& added, const Character* first, const Character* last,
                      std::vector<Token>& tokens, const Between& between) const {
    const Character* rest = first;
    for (const Character* at = first; at != last;) {
        const Added* found = nullptr;
        if (const auto candidates = added.find(at->code); candidates != added.end())
            for (const Added& each : candidates->second)
                if (static_cast<std::size_t>(last - at) >= each.content.size() &&
                    std::equal(each.content.begin(), each.content.end(), at,
                               [](char32_t c, const Character& character) { return c == character.code; })) {
                    found = &each;
                    break;
                }
        if (!found) {
            ++at;
            continue;
        }
        const Character *start = at, *end = at + found->content.size();
        at = end;  // the next one is looked for here, whatever whitespace this one takes
        if (found->takes_left)
            while (start > rest && is_space(start[-1].code)) --start;
        if (found->takes_right)
            while (end != last && is_space(end->code)) ++end;
        if (rest < start) between(rest, start);
        tokens.push_back({found->id, start->start, end[-1].end});
        rest = end;
    }
    if (rest < last) between(rest, last);
}

WordPiece::Characters WordPiece::normalized(const Character* first, const Character* last) const {
    Characters out;
    out.reserve(static_cast<std::size_t>(last - first));
    for (const Character* at = first; at != last; ++at) {
        Character c = *at;
        if (options_.clean_text) {
            const std::uint32_t kind = kind_of(c.code);
            if (kind & unicode::DROPPED) continue;
            if (kind & unicode::SPACE) c.code = ' ';
        }
        if (options_.handle_chinese_chars && is_ideograph(c.code)) {
            out.push_back({' ', c.start, c.end});
            out.push_back(c);
            out.push_back({' ', c.start, c.end});
        } else {
            out.push_back(c);
        }
    }
    if (options_.strip_accents) {
        struct Part {
            char32_t code;
            bool is_first;  // of a character
            std::uint32_t combining;
        };
        std::vector<Part> parts;
        parts.reserve(out.size());
        for (const Character& c : out) {
            bool is_first = true;
            decompose(c.code, [&](char32_t part) {
                parts.push_back({part, is_first, class_of(part)});
                is_first = false;
            });
        }
        const auto is_mark = [](const Part& part) { return part.combining != 0; };
        for (auto at = parts.begin(); (at = std::find_if(at, parts.end(), is_mark)) != parts.end();) {
            const auto end = std::find_if_not(at, parts.end(), is_mark);
            std::stable_sort(at, end, [](const Part& a, const Part& b) { return a.combining < b.combining; });
            at = end;
        }
        // By rank, the nth first part belongs to the nth character, also where they have changed places.
        Characters stripped;
        stripped.reserve(parts.size());
        std::size_t next = 0;
        for (const Part& part : parts) {
            if (part.is_first) ++next;
            if (kind_of(part.code) & unicode::MARK) continue;
            const Character& from = out[next ? next - 1 : 0];
            stripped.push_back({part.code, from.start, from.end});
        }
        out = std::move(stripped);
    }
    if (options_.lowercase) {
        constexpr char32_t DOTTED_I = 0x130, DOT = 0x307;
        Characters lower;
        lower.reserve(out.size());
        for (const Character& c : out) {
            lower.push_back({c.code == DOTTED_I ? U'i' : lower_case(c.code), c.start, c.end});
            if (c.code == DOTTED_I) lower.push_back({DOT, c.start, c.end});
        }
        out = std::move(lower);
    }
    return out;
}

void WordPiece::add_words(const Character* first, const Character* last, std::vector<Token>& tokens) const {
    const Character* word = first;
    for (const Character* at = first; at != last; ++at) {
        const std::uint32_t kind = kind_of(at->code);
        if (!(kind & (unicode::SPACE | unicode::PUNCTUATION))) continue;
        add_word(word, at, tokens);
        if (!(kind & unicode::SPACE)) add_word(at, at + 1, tokens);
        word = at + 1;
    }
    add_word(word, last, tokens);
}

// The longest token that the word begins with, then the longest that continues it, and so on.
void WordPiece::add_word(const Character* first, const Character* last, std::vector<Token>& tokens) const {
    if (first == last) return;
    const auto give_up = [&, size = tokens.size()] {
        tokens.resize(size);
        tokens.push_back({unknown_id_, first->start, last[-1].end});
    };
    if (last - first > options_.longest_word) return give_up();
    std::string text;
    std::vector<std::pair<std::size_t, std::uint32_t>> ends;  // by number of characters: bytes, and their hash
    for (const Character* from = first; from != last;) {
        text = from == first ? "" : options_.prefix;
        std::uint32_t hash = hash_of(text);
        ends.clear();
        for (const Character* at = from; at != last && text.size() < longest_token_; ++at) {
            const std::size_t size = text.size();
            append_utf8(at->code, text);
            for (std::size_t i = size; i < text.size(); ++i) hash = hash_on(hash, text[i]);
            ends.emplace_back(text.size(), hash);
        }
        std::int32_t id = -1;
        for (; !ends.empty(); ends.pop_back()) {
            text.resize(ends.back().first);
            id = slots_[slot_of(text, ends.back().second)];
            if (id >= 0) break;
        }
        if (id < 0) return give_up();
        const Character* const end = from + ends.size();
        tokens.push_back({id, from->start, end[-1].end});
        from = end;
    }
}

}  // namespace pocketbert
