package compat

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"unicode/utf8"

	"agentmarket.space/server/models"
)

// MaxBodyBytes is how many bytes a request's body has at most.
const MaxBodyBytes = 1 << 20

// maxDrainBytes is how many bytes past that are read and thrown away: a client that is
// cut off while it sends never reads why.
const maxDrainBytes = 16 << 20

// bodyFields are the members of a JSON object, still to be read. Of a name given
// twice the last one counts, names are told apart by case, and unknown ones do
// no harm.
type bodyFields map[string]json.RawMessage

// readBody reads a request's body. An empty one is an object without members,
// whatever its Content-Type: curl names one when there is nothing to send. A
// missing Content-Type is JSON's.
func readBody(r *http.Request) (bodyFields, error) {
	body, err := readAll(r)
	if err != nil {
		return nil, err
	}
	if len(strings.TrimSpace(string(body))) == 0 {
		return bodyFields{}, nil
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, models.Errorf(models.UnsupportedMedia, "the body must be sent with Content-Type: application/json")
	}
	if !utf8.Valid(body) {
		return nil, models.Errorf(models.InvalidInput, "the body must be valid UTF-8")
	}
	var found bodyFields
	err = json.Unmarshal(body, &found)
	if _, mistyped := errors.AsType[*json.UnmarshalTypeError](err); mistyped || err == nil && found == nil {
		return nil, models.Errorf(models.InvalidInput, "the body must be a JSON object")
	}
	if err != nil {
		return nil, models.Errorf(models.InvalidInput, "the body is not valid JSON")
	}
	return found, nil
}

func readAll(r *http.Request) ([]byte, error) {
	tooLarge := models.Errorf(models.PayloadTooLarge, "the body must have at most %d bytes", MaxBodyBytes)
	if r.ContentLength > MaxBodyBytes && r.Header.Get("Expect") != "" {
		return nil, tooLarge // the client waits for leave to send
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBodyBytes+1))
	if err != nil {
		return nil, models.Errorf(models.InvalidInput, "the body did not come in whole")
	}
	if len(body) > MaxBodyBytes {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrainBytes)
		return nil, tooLarge
	}
	return body, nil
}

func isJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json"))
}

// decode reads the fields of a request. Those tagged omitempty may be left out
// or null; each other one is INVALID_INPUT when it is missing, and any of them
// when it is of another type.
func decode[In any](given bodyFields) (In, error) {
	var in In
	into := reflect.ValueOf(&in).Elem()
	for i := range into.NumField() {
		name, options, _ := strings.Cut(into.Type().Field(i).Tag.Get("json"), ",")
		raw, ok := given[name]
		switch {
		case (!ok || string(raw) == "null") && options == "omitempty":
		case !ok || string(raw) == "null":
			return in, models.Invalid(name, "is required")
		case json.Unmarshal(raw, into.Field(i).Addr().Interface()) != nil:
			return in, models.Invalid(name, "must be %s", jsonTypeName(into.Field(i).Type()))
		}
	}
	return in, nil
}

// jsonTypeName names the JSON type that a field of a request takes.
func jsonTypeName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice:
		return "an array of strings"
	case t.Kind() == reflect.String:
		return "a string"
	default:
		return "a whole number"
	}
}
