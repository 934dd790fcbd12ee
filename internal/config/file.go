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

// configFileFlag is the flag that names the file of settings.
const configFileFlag = "config"

// File is where settings may be kept: a JSON object of them, under the names of their
// flags. A command that has some of the settings embeds it.
type File struct {
	Path string `env:"AGENTMARKET_CONFIG" help:"JSON file with settings under the names of their flags; variables and flags go before it." name:"config" placeholder:"FILE"`
}

// BeforeResolve has kong look for settings in the file that the command line or the
// environment names. A file that cannot be read, a setting that there is not and a
// value of another type are errors that name them, whichever command is run.
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

// fileValues are the settings of a file by the names of their flags, as they would be
// written on a command line.
type fileValues map[string]string

// Validate is for kong; the file was checked when it was read.
func (fileValues) Validate(*kong.Application) error { return nil }

// Resolve is the value of a flag that neither the command line nor the environment has.
func (v fileValues) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (given any, err error) {
	if value, ok := v[flag.Name]; ok && envVariable(flag) == "" {
		given = value
	}
	return given, nil
}

// envVariable is the environment variable that a flag has its value from, empty for none.
func envVariable(flag *kong.Flag) string {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok { //nolint:forbidigo // it is told where a setting comes from
			return name
		}
	}
	return ""
}

func readFile(path string) (fileValues, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if reason, ok := errors.AsType[*os.PathError](err); ok {
		return nil, reason.Err
	}
	if err != nil {
		return nil, err
	}
	known, err := settingFlags()
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	found, err := decodeSettings(decoder, known)
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	switch {
	case ok:
		return nil, fmt.Errorf("line %d: %w", lineNumber(text, syntax.Offset), err)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("line %d: %w", lineNumber(text, int64(len(text))), io.ErrUnexpectedEOF)
	default:
		return found, err
	}
}

func lineNumber(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(offset, int64(len(text)))], []byte("\n"))
}

// decodeSettings reads one object of settings and nothing after it.
func decodeSettings(decoder *json.Decoder, known map[string]*kong.Flag) (fileValues, error) {
	start, err := decoder.Token()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if start != json.Delim('{') {
		return nil, errors.New(`want a JSON object of settings, like {"lease": "12h"}`)
	}
	found := fileValues{}
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
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("%s: is there twice", name)
		}
		if found[name], err = flagText(known[name], value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the object of settings")
	}
	return found, nil
}

// flagText is a value of the file as it would be written after a flag.
func flagText(flag *kong.Flag, value any) (text string, err error) {
	if flag == nil {
		return "", errors.New("there is no such setting; 'agentmarket config' lists them")
	}
	of := flag.Target.Type()
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() == reflect.Slice {
		text, err = listText(of.Elem(), value)
	} else {
		text, err = scalarText(of, value)
	}
	if err != nil {
		return "", err
	}
	trial := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Parse(kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: text}), trial); err != nil {
		return "", errors.Unwrap(err) // the flag's name is said already
	}
	return text, nil
}

func listText(of reflect.Type, value any) (string, error) {
	items, ok := value.([]any)
	if !ok {
		return "", errors.New("must be a list, like [1, 2] or [\"a\", \"b\"]")
	}
	texts := make([]string, len(items))
	for i, item := range items {
		text, err := scalarText(of, item)
		if err != nil {
			return "", fmt.Errorf("in the list: %w", err)
		}
		texts[i] = strings.ReplaceAll(text, ",", `\,`)
	}
	return strings.Join(texts, ","), nil
}

func scalarText(of reflect.Type, value any) (string, error) {
	want := "a string"
	switch kind := of.Kind(); {
	case of == reflect.TypeFor[time.Duration]():
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
