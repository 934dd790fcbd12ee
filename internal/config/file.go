package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// configFileFlag is the name of the flag with the path of the configuration file.
const configFileFlag = "config"

// File is the configuration file: a JSON object with settings under the names of
// their flags. Commands that use settings embed it.
type File struct {
	Path string `env:"AGENTMARKET_CONFIG" help:"JSON configuration file. Keys are flag names. Environment variables and flags take precedence." name:"config" placeholder:"FILE"`
}

// BeforeResolve adds the configuration file to the sources that kong reads. It
// returns an error if the file cannot be read, or has an unknown setting or a value
// of the wrong type, even if the command does not use that setting.
func (*File) BeforeResolve(parsing *kong.Context) error {
	for _, flag := range parsing.Flags() {
		path, _ := parsing.FlagValue(flag).(string)
		if flag.Name != configFileFlag || path == "" {
			continue
		}
		found, err := readFile(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		parsing.AddResolver(found)
	}
	return nil
}

// fileValues maps flag names to values, formatted as on the command line.
type fileValues map[string]string

// Validate implements kong.Resolver. readFile has validated the values.
func (fileValues) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver. It returns no value if the environment has one.
func (v fileValues) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (text any, err error) {
	if value, ok := v[flag.Name]; ok && envVariable(flag) == "" {
		text = value
	}
	return text, nil
}

// envVariable returns the name of the environment variable that sets a flag, or "".
func envVariable(flag *kong.Flag) string {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok { //nolint:forbidigo // reports the source of a setting
			return name
		}
	}
	return ""
}

func readFile(path string) (fileValues, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator chooses the path
	if reason, ok := errors.AsType[*os.PathError](err); ok {
		return nil, reason.Err
	}
	if err != nil {
		return nil, err
	}
	flags, err := settingFlags()
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	values, err := decodeSettings(decoder, flags)
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	switch {
	case ok:
		return nil, fmt.Errorf("line %d: %w", lineNumber(text, syntax.Offset), err)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("line %d: %w", lineNumber(text, int64(len(text))), io.ErrUnexpectedEOF)
	default:
		return values, err
	}
}

func lineNumber(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(offset, int64(len(text)))], []byte("\n"))
}

// decodeSettings reads a single JSON object of settings.
func decodeSettings(decoder *json.Decoder, flags map[string]*kong.Flag) (fileValues, error) {
	start, err := decoder.Token()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if start != json.Delim('{') {
		return nil, errors.New(`want a JSON object of settings, like {"lease": "12h"}`)
	}
	values := fileValues{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		name := fmt.Sprint(token)
		if _, duplicate := values[name]; duplicate {
			return nil, fmt.Errorf("%s: duplicate setting", name)
		}
		if values[name], err = flagText(flags[name], value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("unexpected data after the JSON object")
	}
	return values, nil
}

// flagText formats a JSON value as on the command line.
func flagText(flag *kong.Flag, value any) (text string, err error) {
	if flag == nil {
		return "", errors.New("unknown setting; 'agentmarket config' lists all settings")
	}
	typ := flag.Target.Type()
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() == reflect.Slice {
		text, err = listText(typ.Elem(), value)
	} else {
		text, err = scalarText(typ, value)
	}
	if err != nil {
		return "", err
	}
	parsed := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Parse(kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: text}), parsed); err != nil {
		return "", errors.Unwrap(err) // drop the flag name, the caller adds it
	}
	return text, nil
}

func listText(typ reflect.Type, value any) (string, error) {
	items, ok := value.([]any)
	if !ok {
		return "", errors.New("must be a list, like [1, 2] or [\"a\", \"b\"]")
	}
	texts := make([]string, len(items))
	for i, item := range items {
		text, err := scalarText(typ, item)
		if err != nil {
			return "", fmt.Errorf("list item: %w", err)
		}
		texts[i] = strings.ReplaceAll(text, ",", `\,`)
	}
	return strings.Join(texts, ","), nil
}

func scalarText(typ reflect.Type, value any) (string, error) {
	want := "a string"
	switch kind := typ.Kind(); {
	case typ == reflect.TypeFor[time.Duration]():
		want = `a string like "30s" or "24h"`
	case kind == reflect.Bool:
		want = "true or false"
	case kind >= reflect.Int && kind <= reflect.Float64:
		want = "a number"
	}
	switch v := value.(type) {
	case string:
		if strings.HasPrefix(want, "a string") {
			return v, nil
		}
	case json.Number:
		if want == "a number" {
			return v.String(), nil
		}
	case bool:
		if want == "true or false" {
			return strconv.FormatBool(v), nil
		}
	}
	return "", fmt.Errorf("must be %s", want)
}
