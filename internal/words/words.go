// Package words splits text into normalised words, for the search index and for
// capabilities. Both database engines store its results, so they match text alike.
package words

import (
	"slices"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

const (
	// MaxOfText is the number of different words of a text that [Of] returns. It bounds
	// the rows that one text adds to the search index.
	MaxOfText = 256
	// maxLength is the length of a word in characters. The rest of a longer word is
	// ignored in texts and in searches.
	maxLength = 40
)

// Fold returns text in composed form (NFC) and without case differences (Unicode case
// folding). "CAFÉ" and "café" are equal in every composition; "Straße" becomes "strasse".
func Fold(text string) string {
	if isFolded(text) {
		return text
	}
	// Folding can decompose a character, and composing it again is the canonical form.
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(text)))
}

// isFolded reports whether text is ASCII without upper case letters.
func isFolded(text string) bool {
	for i := range len(text) {
		if c := text[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// Of returns the different words of texts in order, at most [MaxOfText]. A word is a run of
// letters, digits and marks. In a script that does not separate words, such as Chinese, each
// character is a word. Of never returns nil.
func Of(texts ...string) []string {
	all := []string{}
	seen := map[string]bool{}
	for _, text := range texts {
		for word := range split(text) {
			if !seen[word] && len(all) < MaxOfText {
				seen[word] = true
				all = append(all, word)
			}
		}
	}
	return all
}

// Term is a word of a search.
type Term struct {
	Word   string
	Prefix bool // matches every word that starts with Word
}

// Search returns the terms of a search, in order and without duplicates. A text matches if
// it has all of them. The last one is a prefix, because the user may still be typing it.
func Search(search string) []Term {
	var terms []Term
	for word := range split(search) {
		terms = slices.DeleteFunc(terms, func(t Term) bool { return t.Word == word })
		terms = append(terms, Term{Word: word})
	}
	if len(terms) > 0 {
		terms[len(terms)-1].Prefix = true
	}
	return terms
}

// split yields the normalised words of a text.
func split(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		text := Fold(text)
		for len(text) > 0 {
			r, size := utf8.DecodeRuneInString(text)
			switch {
			case unicode.In(r, unsegmented...):
				if !yield(text[:size]) {
					return
				}
			case isWordRune(r):
				end := size
				for end < len(text) {
					next, n := utf8.DecodeRuneInString(text[end:])
					if !isWordRune(next) || unicode.In(next, unsegmented...) {
						break
					}
					end += n
				}
				if !yield(truncate(text[:end])) {
					return
				}
				size = end
			}
			text = text[size:]
		}
	}
}

// unsegmented are the scripts that write words without spaces between them.
var unsegmented = []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar} //nolint:gochecknoglobals // constant

func isWordRune(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || '0' <= r && r <= '9'
	}
	return unicode.In(r, unicode.Letter, unicode.Number, unicode.Mark)
}

// truncate returns the first maxLength characters of a word.
func truncate(word string) string {
	if len(word) <= maxLength {
		return word
	}
	n := 0
	for i := range word {
		if n == maxLength {
			return word[:i]
		}
		n++
	}
	return word
}
