package ledger

import (
	"fmt"
	"strings"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
)

// searchVersion is the first schema version with a search index.
const searchVersion = 2

// verifyPageSize is the number of rows whose words are compared at a time.
const verifyPageSize = 1000

// searchIndex is a table and its search index.
type searchIndex struct{ noun, table, title, words, id, condition string }

// verifySearch compares the search index with the texts of all tasks and agents, and
// returns the violations. It returns none for a database without a search index.
func verifySearch(db *gorm.DB) ([]string, error) {
	if version, err := database.SchemaVersion(db); err != nil || version < searchVersion {
		return nil, err
	}
	var violations []string
	for _, index := range []searchIndex{
		{"task", "tasks", "title", "task_words", "task_id", "origin = 'marketplace'"},
		{"agent", "agents", "name", "agent_words", "agent_id", "1 = 1"},
	} {
		texts, err := index.compareTexts(db)
		if err != nil {
			return nil, fmt.Errorf("verify the words of %s: %w", index.table, err)
		}
		rows, err := index.compareRows(db)
		if err != nil {
			return nil, fmt.Errorf("verify that the search index matches %s: %w", index.table, err)
		}
		violations = append(violations, texts...)
		violations = append(violations, rows...)
	}
	return violations, nil
}

// compareTexts compares the words of each row with its text. It skips rows that an older
// version of the program wrote: the next start indexes them.
func (s searchIndex) compareTexts(db *gorm.DB) (violations []string, err error) {
	type row struct{ ID, Title, Description, Words string }
	for after := ""; len(violations) < maxViolations; {
		var page []row
		query := fmt.Sprintf("SELECT id, %s AS title, description, words FROM %s WHERE id > ? AND words IS NOT NULL AND %s ORDER BY id LIMIT %d",
			s.title, s.table, s.condition, verifyPageSize)
		if err := db.Raw(query, after).Scan(&page).Error; err != nil || len(page) == 0 {
			return violations, err
		}
		for _, r := range page {
			if want := database.EncodeWords(r.Title, r.Description); r.Words != want {
				violations = append(violations, fmt.Sprintf("%s %s is indexed with the words %.40q, want %.40q", s.noun, r.ID, r.Words, want))
			}
		}
		after = page[len(page)-1].ID
	}
	return violations[:maxViolations], nil
}

// compareRows compares the index with the words of each row: no row of the index is
// missing, and there are no others.
func (s searchIndex) compareRows(db *gorm.DB) (violations []string, err error) {
	each, length := "json_each(t.words)", "json_array_length(t.words)"
	if db.Name() == "postgres" {
		each, length = "json_array_elements_text(t.words::json) AS j (value)", "json_array_length(t.words::json)"
	}
	replacer := strings.NewReplacer("{noun}", s.noun, "{table}", s.table, "{words}", s.words, "{id}", s.id, "{condition}", s.condition, "{each}", each, "{length}", length)
	err = db.Raw(replacer.Replace(`SELECT '{noun} ' || t.id || ' is missing from the search index for the word ' || value FROM {table} t, {each}
		WHERE {condition} AND NOT EXISTS (SELECT 1 FROM {words} w WHERE w.word = value AND w.{id} = t.id)`) + fmt.Sprintf(" LIMIT %d", maxViolations)).Scan(&violations).Error
	if err != nil {
		return nil, err
	}
	var want, got int64
	err = db.Raw(replacer.Replace(`SELECT (SELECT COALESCE(SUM({length}), 0) FROM {table} t WHERE {condition}), (SELECT COUNT(*) FROM {words})`)).Row().Scan(&want, &got)
	if err == nil && want != got {
		violations = append(violations, fmt.Sprintf("the search index of %s has %d rows, want %d", s.table, got, want))
	}
	return violations, err
}
