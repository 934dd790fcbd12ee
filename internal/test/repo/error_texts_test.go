package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// maxTextLength bounds error and log texts, in bytes, with format verbs as written.
const maxTextLength = 160

// textKind is the kind of a text, which decides the rules for it.
type textKind int

const (
	errorText textKind = iota // a complete error
	fieldText                 // follows the name of an input field: models.Invalid
	logText                   // a log message
)

// textFuncs maps functions to the kind of their text and the index of its argument.
// Log methods are in logMethods, because their receivers have many names.
func textFuncs() map[string]textArg {
	return map[string]textArg{
		"errors.New": {errorText, 0}, "fmt.Errorf": {errorText, 0},
		"models.Errorf": {errorText, 1}, "models.RateLimitError": {errorText, 1}, "models.FieldErrorf": {fieldText, 1},
		"config.check": {errorText, 1}, // collects the errors of Config.Validate
	}
}

// logMethods maps the methods of *slog.Logger to the index of the message.
func logMethods() map[string]int {
	return map[string]int{
		"Debug": 0, "Info": 0, "Warn": 0, "Error": 0,
		"DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "Log": 2, "LogAttrs": 2,
	}
}

// textArg is the kind of a text and its position in the arguments of a call.
type textArg struct {
	kind  textKind
	index int
}

// TestErrorTexts checks the constant texts of all errors and log messages of the
// program: each says what is wrong, in one short line of plain English.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	found := 0
	walkModule(t, func(name string) error {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil || ast.IsGenerated(file) {
			return err
		}
		for _, text := range fileTexts(file, path.Base(path.Dir(name))) {
			found++
			if reason := textViolation(text.kind, text.value); reason != "" {
				t.Errorf("%s: %s: %q", fset.Position(text.pos), reason, text.value)
			}
		}
		return nil
	})
	if found < 400 {
		t.Errorf("found only %d texts", found)
	}
}

// TestErrorTexts_rejectsViolations checks the rules themselves.
func TestErrorTexts_rejectsViolations(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		kind textKind
		text string
		want string // a part of the reason, empty for a valid text
	}{
		{errorText, "open database: %w", ""},
		{errorText, "%s: %w", ""},
		{errorText, "%w: %w", ""},
		{errorText, "task %s is already assigned", ""},
		{errorText, "--parallel must be at least 1", ""},
		{errorText, "PostgreSQL 14 or later is required", ""},
		{errorText, "JSON body required", ""},
		{errorText, "%s failed: %w\n%s", ""},
		{errorText, "events up to %d are no longer stored", ""},
		{errorText, "Idempotency-Key must not be empty", ""},
		{fieldText, "must be from %d to %d", ""},
		{logText, "request", ""},
		{logText, "webhook suspended", ""},

		{errorText, "", "no text"},
		{errorText, "closed", "one word"},
		{errorText, "Open database: %w", "capital"},
		{errorText, "the task is assigned.", "period"},
		{errorText, "the task is assigned\n", "line break"},
		{errorText, strings.Repeat("long ", 33), "longer"},
		{errorText, "it is too old", "subject"},
		{errorText, "is there already: %s", "subject"},
		{errorText, "%s is no JSON object", "is no"},
		{errorText, "whoever asks must pay", "whoever"},
		{errorText, "seal the secret anew", "anew"},
		{errorText, "the file beside the database", "beside"},
		{errorText, "three attempts in vain", "in vain"},
		{errorText, "there is no telling where table %q belongs", "subject"},
		{errorText, "the row is gone", "gone"},
		{fieldText, "is no address", "is no"},
		{fieldText, "must be a number.", "period"},
		{logText, "Webhook suspended", "capital"},
		{logText, "the webhook meanwhile failed", "meanwhile"},
	} {
		reason := textViolation(row.kind, row.text)
		if row.want == "" && reason != "" || !strings.Contains(reason, row.want) || row.want != "" && reason == "" {
			t.Errorf("%q: got %q, want %q", row.text, reason, row.want)
		}
	}
}

// TestErrorTexts_findsTexts checks which calls of a file are read.
func TestErrorTexts_findsTexts(t *testing.T) {
	t.Parallel()
	const source = `package market
		func f() error {
			logger.WarnContext(ctx, "log", slog.Any("error", errors.New("new")))
			s.opts.Logger.Error("field")
			_ = models.FieldErrorf("title", "invalid")
			_ = fmt.Errorf("first " + "second %w", err)
			_ = errors.New("with " + name)
			t.Errorf("ignored"); http.Error(w, "ignored", 400)
			return models.Errorf(models.Conflict, ` + "`raw`" + `)
		}`
	file, err := parser.ParseFile(token.NewFileSet(), "f.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, text := range fileTexts(file, "market") {
		got = append(got, text.value)
	}
	if want := "log|new|field|invalid|first second %w|with %v|raw"; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", strings.Join(got, "|"), want)
	}
}

// foundText is a text of a file.
type foundText struct {
	pos   token.Pos
	kind  textKind
	value string
}

// fileTexts returns the error and log texts of a file in a package.
func fileTexts(file *ast.File, pkg string) (texts []foundText) {
	funcs, methods := textFuncs(), logMethods()
	ast.Inspect(file, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok {
			return true
		}
		arg, ok := funcs[calledName(call, pkg)]
		if selector, isSelector := call.Fun.(*ast.SelectorExpr); !ok && isSelector && isLogger(selector.X) {
			arg.kind = logText
			arg.index, ok = methods[selector.Sel.Name]
		}
		if !ok || arg.index >= len(call.Args) {
			return true
		}
		if value, ok := constantText(call.Args[arg.index]); ok {
			texts = append(texts, foundText{call.Args[arg.index].Pos(), arg.kind, value})
		}
		return true
	})
	return texts
}

// calledName returns the name of a called function with its package: that of the file
// if the call names none.
func calledName(call *ast.CallExpr, pkg string) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return pkg + "." + f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
	}
	return ""
}

// isLogger reports whether an expression looks like a *slog.Logger or the package slog.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "slog" || strings.EqualFold(x.Name, "logger")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "logger")
	case *ast.CallExpr: // logger.With(...)
		if f, ok := x.Fun.(*ast.SelectorExpr); ok {
			return isLogger(f.X)
		}
	}
	return false
}

// constantText returns the text of a string literal or a concatenation. Operands that
// are not literals become %v. ok is false if there is no literal.
func constantText(expr ast.Expr) (text string, ok bool) {
	switch e := expr.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		left, leftOK := constantText(e.X)
		right, rightOK := constantText(e.Y)
		return left + right, leftOK || rightOK
	default:
		return "%v", false
	}
}

var (
	formatVerb = regexp.MustCompile(`%[-+# 0]*\d*(?:\.\d+)?(?:\[\d+\])?[a-zA-Z]`)
	noSubject  = regexp.MustCompile(`^(?:it|they|there|is|are|was|were|has|have|what|who|be) `)
	// bannedWords matches words that make a text hard to understand.
	bannedWords = regexp.MustCompile(`(?i)\b(?:whoever|anew|beside|in vain|meanwhile|be it|as it stands|at hand|over and over|for good|gone|such a one|` +
		`(?:told|tells?|hears?|heard) of|so (?:many|much|long)|of its own|by itself|(?:is|are|was|were) (?:no|none|nobody)|no telling|nobody|somebody|a stranger)\b`)
)

// textViolation returns the rule that a text violates, or "".
func textViolation(kind textKind, text string) string {
	text = strings.TrimSuffix(text, "\n%s") // a stack or the output of a program follows
	first, _, _ := strings.Cut(text, " ")
	words := strings.FieldsFunc(formatVerb.ReplaceAllString(text, " "), func(c rune) bool { return !unicode.IsLetter(c) && c != '-' && c != '\'' })
	switch {
	case text == "":
		return "no text"
	case strings.Contains(text, "\n"):
		return "contains a line break"
	case len(text) > maxTextLength:
		return "longer than " + strconv.Itoa(maxTextLength) + " bytes"
	case strings.HasSuffix(text, "."):
		return "ends with a period"
	case startsWithCapital(first):
		return "starts with a capital letter"
	case kind == errorText && noSubject.MatchString(text):
		return "has no subject: name what is wrong"
	case kind == errorText && len(words) == 1 && !formatVerb.MatchString(text):
		return "one word only: say what is wrong"
	}
	if banned := bannedWords.FindString(strings.ReplaceAll(text, "no longer", "")); banned != "" {
		return "contains " + strconv.Quote(banned)
	}
	return ""
}

// startsWithCapital reports whether a text starts with an ordinary word in upper case.
// Acronyms, names like PostgreSQL, header fields and variables are not ordinary words.
func startsWithCapital(first string) bool {
	letters := strings.TrimFunc(first, func(c rune) bool { return !unicode.IsLetter(c) })
	if letters == "" || !strings.HasPrefix(first, letters[:1]) || !unicode.IsUpper(rune(letters[0])) {
		return false
	}
	return letters != "Claude" && letters != "Unauthorized" && letters != "Authorization" && !strings.ContainsFunc(letters[1:], unicode.IsUpper)
}
