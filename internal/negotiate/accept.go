package negotiate

import (
	"mime"
	"strconv"
	"strings"
)

// Accept is a parsed Accept header. The zero value is that of a request without one.
type Accept []mediaRange

// mediaRange is one element of an Accept header.
type mediaRange struct {
	kind, subtype string // * matches any
	specificity   int    // a range with a higher one decides
	weight        float64
}

// How specific a range is. All responses are UTF-8 and have no other parameter, so a range
// with unknown parameters matches, but a plain one decides.
const (
	anyType = iota
	anySubtype
	unknownParams
	exactType
	exactCharset
)

// Parse parses the values of all Accept headers of a request. It leaves out elements that
// are malformed, and those for another charset than UTF-8.
func Parse(values []string) Accept {
	var a Accept
	for _, value := range values {
		for value != "" {
			var element string
			element, value = cutElement(value)
			if parsed, ok := parseRange(element); ok {
				a = append(a, parsed)
			} else if strings.TrimSpace(element) != "" {
				a = append(a, mediaRange{}) // matches nothing, but the header is not empty
			}
		}
	}
	return a
}

// cutElement splits a list after its first element. A comma in a quoted string does not
// end an element.
func cutElement(list string) (element, rest string) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return list[:i], list[i+1:]
		}
	}
	return list, ""
}

func parseRange(element string) (r mediaRange, ok bool) {
	name, params, err := mime.ParseMediaType(strings.TrimSpace(element))
	if err != nil {
		return r, false
	}
	r.weight = 1
	if text, weighted := params["q"]; weighted {
		if r.weight, err = strconv.ParseFloat(text, 64); err != nil || !(r.weight >= 0 && r.weight <= 1) { // also rejects NaN
			return r, false
		}
		delete(params, "q")
	}
	charset, hasCharset := params["charset"]
	delete(params, "charset")
	if name == "*" { // old Java clients send it for */*
		name = "*/*"
	}
	r.kind, r.subtype, _ = strings.Cut(name, "/")
	switch {
	case hasCharset && !strings.EqualFold(charset, "utf-8"), r.subtype == "", r.kind == "*" && r.subtype != "*":
		return r, false
	case len(params) > 0 && r.weight == 0: // refuses another variant than ours
		return r, false
	case r.kind == "*":
		r.specificity = anyType
	case r.subtype == "*":
		r.specificity = anySubtype
	case len(params) > 0:
		r.specificity = unknownParams
	case hasCharset:
		r.specificity = exactCharset
	default:
		r.specificity = exactType
	}
	return r, true
}

// Best returns the media type among the offers that the client likes best, or "" if it
// accepts none. Among types with equal weights, the one that the header names first wins,
// then the first offer. Without a header, the first offer wins.
func (a Accept) Best(offers ...string) string {
	if len(a) == 0 {
		return offers[0]
	}
	best, bestWeight, bestPosition := "", 0.0, 0
	for _, offer := range offers {
		weight, position := a.rank(offer)
		if weight > bestWeight || weight == bestWeight && weight > 0 && position < bestPosition {
			best, bestWeight, bestPosition = offer, weight, position
		}
	}
	return best
}

// rank returns the weight of a media type and the position of the range that decides it:
// the most specific one, and among equal ones the one with the highest weight.
func (a Accept) rank(mediaType string) (weight float64, position int) {
	kind, subtype, _ := strings.Cut(mediaType, "/")
	specificity := -1
	for i := range a {
		r := &a[i]
		matches := (r.kind == "*" || r.kind == kind) && (r.subtype == "*" || r.subtype == subtype)
		if matches && (r.specificity > specificity || r.specificity == specificity && r.weight > weight) {
			specificity, weight, position = r.specificity, r.weight, i
		}
	}
	return weight, position
}
