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

	"agentmarket.space/server/internal/jsontext"
	"agentmarket.space/server/models"
)

// MaxBodyBytes is the maximum size of a request body in bytes.
const MaxBodyBytes = 1 << 20

// maxDrainBytes is how many more bytes of an oversized body are read and discarded. A
// client whose connection is closed while it sends would not read the error.
const maxDrainBytes = 16 << 20

// bodyFields are the members of a JSON object. The last of two members with the same
// name is used. Names are case-sensitive. Unknown members are ignored.
type bodyFields map[string]json.RawMessage

// readBody reads the request body. An empty body is an empty object, whatever its
// Content-Type: curl sends a Content-Type with an empty body. A missing Content-Type
// means JSON.
func readBody(r *http.Request) (bodyFields, error) {
	body, err := readAll(r)
	if err != nil {
		return nil, err
	}
	body = jsontext.TrimByteOrderMark(body)
	if len(strings.TrimSpace(string(body))) == 0 {
		return bodyFields{}, nil
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, models.Errorf(models.UnsupportedMedia, "the body must be sent with Content-Type: application/json")
	}
	if !utf8.Valid(body) {
		return nil, models.Errorf(models.InvalidInput, "the body must be valid UTF-8")
	}
	var fields bodyFields
	err = json.Unmarshal(body, &fields)
	if _, mistyped := errors.AsType[*json.UnmarshalTypeError](err); mistyped || err == nil && fields == nil {
		return nil, models.Errorf(models.InvalidInput, "the body must be a JSON object")
	}
	if err != nil {
		return nil, models.Errorf(models.InvalidInput, "the body is not valid JSON")
	}
	if path, found := jsontext.UnpairedSurrogate(body); found {
		field, message := jsontext.FieldError(path)
		return nil, &models.Error{Code: models.InvalidInput, Message: message, Field: field}
	}
	return fields, nil
}

func readAll(r *http.Request) ([]byte, error) {
	tooLarge := models.Errorf(models.PayloadTooLarge, "the body must have at most %d bytes", MaxBodyBytes)
	if r.ContentLength > MaxBodyBytes && r.Header.Get("Expect") != "" {
		return nil, tooLarge // the client waits for 100 Continue
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBodyBytes+1))
	if err != nil {
		return nil, models.Errorf(models.InvalidInput, "could not read the request body")
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

// decode decodes the fields of a request to In. Fields tagged omitempty are optional.
// A missing required field or a value of the wrong type is INVALID_INPUT.
func decode[In any](fields bodyFields) (In, error) {
	var in In
	dst := reflect.ValueOf(&in).Elem()
	for i := range dst.NumField() {
		name, options, _ := strings.Cut(dst.Type().Field(i).Tag.Get("json"), ",")
		raw, ok := fields[name]
		switch {
		case (!ok || string(raw) == "null") && options == "omitempty":
		case !ok || string(raw) == "null":
			return in, models.FieldErrorf(name, "is required")
		default:
			if err := decodeValue(raw, dst.Field(i)); err != nil {
				return in, models.FieldErrorf(name, "%v", err)
			}
		}
	}
	return in, nil
}

// decodeValue decodes the value of a field, which is not null. Fields are strings, arrays
// of strings and whole numbers. The text of the error follows the name of the field.
func decodeValue(raw json.RawMessage, field reflect.Value) error {
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem()
	}
	if field.CanInt() {
		n, err := models.ParseWholeNumber(string(raw))
		field.SetInt(n)
		return err
	}
	switch err := json.Unmarshal(raw, field.Addr().Interface()); {
	case err == nil:
		return nil
	case field.Kind() == reflect.Slice:
		return errors.New("must be an array of strings")
	default:
		return errors.New("must be a string")
	}
}
