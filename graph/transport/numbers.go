package transport

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// normalizeNumbers writes the whole numbers in a request's variables and extensions without
// a decimal point or an exponent: in JSON, 2.0 and 2e0 are the integer 2, but gqlgen and
// gqlparser compare spellings. Other numbers keep their text, for errors to show.
func normalizeNumbers(params *graphql.RawParams) {
	normalizeMembers(params.Variables)
	normalizeMembers(params.Extensions)
}

func normalizeMembers(object map[string]any) {
	for name, value := range object {
		object[name] = normalizeValue(value)
	}
}

func normalizeValue(value any) any {
	switch value := value.(type) {
	case json.Number:
		if n, err := models.ParseWholeNumber(value.String()); err == nil {
			return json.Number(strconv.FormatInt(n, 10))
		}
	case map[string]any:
		normalizeMembers(value)
	case []any:
		for i := range value {
			value[i] = normalizeValue(value[i])
		}
	}
	return value
}

// describeWrongNumbers replaces the errors of gqlparser for variables that must be an Int. They
// show another value than the one that was sent.
func describeWrongNumbers(errs gqlerror.List, variables map[string]any) {
	for _, err := range errs {
		if len(err.Path) < 2 || err.Path[0] != ast.PathName("variable") || !strings.HasSuffix(err.Message, " as Int") {
			continue
		}
		name, value := valueAt(variables, err.Path[1:])
		described := models.WrongNumber(value)
		if number, ok := value.(json.Number); ok {
			_, described = models.ParseWholeNumber(number.String())
		}
		if described == nil || name == "" {
			continue
		}
		err.Message = name + " " + described.Error()
		if err.Extensions == nil {
			err.Extensions = map[string]any{}
		}
		err.Extensions["field"] = name
	}
}

// valueAt returns the value at a path below the variables, and its name.
func valueAt(variables map[string]any, path ast.Path) (name string, value any) {
	value = variables
	for _, step := range path {
		switch step := step.(type) {
		case ast.PathName:
			object, _ := value.(map[string]any)
			name, value = string(step), object[string(step)]
		case ast.PathIndex:
			list, ok := value.([]any)
			if ok && int(step) < len(list) { // a single value stands for a list of one
				value = list[step]
			}
		}
	}
	return name, value
}
