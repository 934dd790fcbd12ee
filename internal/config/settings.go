package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// masked stands for what nobody may see.
const masked = "********"

// Setting is a setting as it holds for a command that was parsed.
type Setting struct {
	Name     string `json:"-"` // of its flag
	Value    string `json:"value"`
	Source   string `json:"from"` // flag, environment, file or default
	Variable string `json:"variable"`
}

// Settings are the settings of a parsed command in the order of [Config], with
// secrets, and passwords in addresses, masked.
func Settings(parsed *kong.Context) ([]Setting, error) {
	known, err := settingFlags()
	if err != nil {
		return nil, err
	}
	from := map[*kong.Flag]string{}
	for _, step := range parsed.Path {
		switch {
		case step.Flag == nil:
		case step.Resolved:
			from[step.Flag] = "file"
		default:
			from[step.Flag] = "flag"
		}
	}
	var all []Setting
	for _, flag := range parsed.Flags() {
		if known[flag.Name] == nil {
			continue
		}
		s := Setting{Name: flag.Name, Value: maskedValue(flag), Source: from[flag], Variable: strings.Join(flag.Envs, " ")}
		switch {
		case s.Source != "":
		case envVariable(flag) != "":
			s.Source = "environment"
		default:
			s.Source = "default"
		}
		all = append(all, s)
	}
	return all, nil
}

// settingFlags are the settings by the names of their flags.
func settingFlags() (map[string]*kong.Flag, error) {
	parser, err := kong.New(&Config{}, kong.NoDefaultHelp())
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	all := map[string]*kong.Flag{}
	for _, flag := range parser.Model.Flags {
		all[flag.Name] = flag
	}
	return all, nil
}

// maskedValue is the value of a flag as it may be seen.
func maskedValue(flag *kong.Flag) string {
	text := formatValue(flag.Target)
	if flag.Tag.Has(secretTag) && text != "" {
		return masked
	}
	return maskCredentials(text)
}

// formatValue is a value as it would be given.
func formatValue(value reflect.Value) string {
	kind := value.Kind()
	if kind == reflect.Pointer && value.IsNil() {
		return ""
	}
	if kind == reflect.Pointer {
		return formatValue(value.Elem())
	}
	if kind != reflect.Slice {
		return fmt.Sprint(value.Interface())
	}
	items := make([]string, value.Len())
	for i := range items {
		items[i] = formatValue(value.Index(i))
	}
	return strings.Join(items, ",")
}

// maskCredentials is a value without what comes before an @ in it: an address may hold a
// password or a token there, and in its query.
func maskCredentials(text string) string {
	text = regexp.MustCompile(`^([a-z]+://)?\S*@`).ReplaceAllString(text, "${1}"+masked+"@")
	return regexp.MustCompile(`([?&](?:ssl)?password=)[^\s&]+`).ReplaceAllString(text, "${1}"+masked)
}
