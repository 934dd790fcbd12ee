package words_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/internal/words"
)

func TestFold(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ text, want string }{
		{"plain", "plain"},
		{"Research", "research"},
		{"CAFÉ", "caf\u00e9"},
		{"CAFE\u0301", "caf\u00e9"},
		{"cafe\u0301", "caf\u00e9"},
		{"ÜBERSETZEN ПЕРЕВОД", "übersetzen перевод"},
		{"Straße", "strasse"},
		{"ΣΊΣΥΦΟΣ", "σίσυφοσ"},
		{"Σίσυφος", "σίσυφοσ"},
		{"\u212a", "k"}, // the Kelvin sign
	} {
		if got := words.Fold(row.text); got != row.want {
			t.Errorf("Fold(%+q) is %+q, want %+q", row.text, got, row.want)
		}
		if got := words.Fold(row.want); got != row.want {
			t.Errorf("Fold(%+q) is %+q, want it unchanged", row.want, got)
		}
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		texts []string
		want  []string
	}{
		{nil, []string{}},
		{[]string{"", " \t!\"_%"}, []string{}},
		{[]string{"Bench-000012, the BENCH."}, []string{"bench", "000012", "the"}},
		{[]string{"one two", "Two three"}, []string{"one", "two", "three"}},
		{[]string{"ÜBERSETZEN ПЕРЕВОД"}, []string{"übersetzen", "перевод"}},
		{[]string{"翻译task"}, []string{"翻", "译", "task"}},
		{[]string{strings.Repeat("ab", 100)}, []string{strings.Repeat("ab", 20)}},
		{[]string{strings.Repeat("é", 100)}, []string{strings.Repeat("é", 40)}},
	} {
		if got := words.Of(row.texts...); got == nil || !slices.Equal(got, row.want) {
			t.Errorf("Of(%q) is %q, want %q", row.texts, got, row.want)
		}
	}
}

func TestOf_isBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 2 * words.MaxOfText {
		fmt.Fprintf(&text, "w%d ", i)
	}
	if got := words.Of(text.String()); len(got) != words.MaxOfText || got[words.MaxOfText-1] != fmt.Sprintf("w%d", words.MaxOfText-1) {
		t.Errorf("got %d words, the last one %q", len(got), got[len(got)-1])
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		search string
		want   []words.Term
	}{
		{"", nil},
		{" %_ ", nil},
		{"Summar", []words.Term{{"summar", true}}},
		{"Two Words ", []words.Term{{"two", false}, {"words", true}}},
		{"a b A", []words.Term{{"b", false}, {"a", true}}},
	} {
		if got := words.Search(row.search); !slices.Equal(got, row.want) {
			t.Errorf("Search(%q) is %v, want %v", row.search, got, row.want)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	text := strings.Repeat("Lorem ipsum dolor sit amet, ", 8)[:200]
	for b.Loop() {
		words.Of("bench-000012345", text)
	}
}
