// Package jsontext finds what encoding/json would change in JSON without an error.
package jsontext

import (
	"bytes"
	"cmp"
	"encoding/json"
	"strconv"
)

// byteOrderMark is the UTF-8 encoding of U+FEFF. Some editors and libraries start a text
// with it. RFC 8259 allows a reader to pass over it.
const byteOrderMark = "\ufeff"

// TrimByteOrderMark returns JSON without the byte order mark that it may start with.
func TrimByteOrderMark(text []byte) []byte { return bytes.TrimPrefix(text, []byte(byteOrderMark)) }

// UnpairedSurrogate finds the first string in valid JSON that has half of a surrogate pair,
// such as "\ud83d": it stands for no character, and encoding/json replaces it. It returns
// the names of the members that contain the string, outermost first; a string that is
// itself the name of a member is in the object around it.
func UnpairedSurrogate(text []byte) (path []string, found bool) {
	if !bytes.Contains(text, []byte(`\u`)) {
		return nil, false
	}
	var name string // of the current member
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			path, name = append(path, name), ""
		case ',':
			name = ""
		case '}', ']':
			path, name = path[:len(path)-1], path[len(path)-1]
		case '"':
			end := i + stringLength(text[i:])
			if HasUnpairedSurrogate(text[i:end]) {
				return withoutEmpty(append(path, name)), true
			}
			if isName(text[end:]) {
				_ = json.Unmarshal(text[i:end], &name) // the text is valid
			}
			i = end - 1
		}
	}
	return nil, false
}

// maxShownName is the length in bytes up to which an error repeats a name of the caller's.
const maxShownName = 64

// FieldError says which field has half of a surrogate pair, from the path that
// [UnpairedSurrogate] returned. The field is empty if there is none that an error can name.
func FieldError(path []string) (field, message string) {
	if len(path) > 0 && len(path[len(path)-1]) <= maxShownName {
		field = path[len(path)-1]
	}
	return field, cmp.Or(field, "the request") + ` must not have half of a surrogate pair, such as \ud83d`
}

// withoutEmpty removes the names of arrays' elements and of the outermost value.
func withoutEmpty(path []string) []string {
	names := path[:0]
	for _, name := range path {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// stringLength returns the length of the JSON string that text starts with.
func stringLength(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// isName reports whether a string is the name of a member, from the text after it.
func isName(rest []byte) bool {
	rest = bytes.TrimLeft(rest, " \t\r\n")
	return len(rest) > 0 && rest[0] == ':'
}

// HasUnpairedSurrogate reports whether a string, as JSON or GraphQL writes it, has an
// escape for half of a surrogate pair without the other half.
func HasUnpairedSurrogate(text []byte) bool {
	high := false // the character before is the first half of a pair
	for i := 0; i < len(text); i++ {
		unit := uint64(0)
		if text[i] == '\\' && i+1 < len(text) {
			i++
			if text[i] == 'u' && i+4 < len(text) {
				unit, _ = strconv.ParseUint(string(text[i+1:i+5]), 16, 16) // 0 for \u{1F600}, which GraphQL has
			}
			if unit != 0 {
				i += 4
			}
		}
		low := unit >= 0xDC00 && unit <= 0xDFFF
		if high != low {
			return true
		}
		high = unit >= 0xD800 && unit < 0xDC00
	}
	return high
}
