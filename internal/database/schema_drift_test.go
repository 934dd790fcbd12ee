package database_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"gorm.io/gorm/schema"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// modelTypes returns the models, one per table.
func modelTypes() []any {
	return []any{
		&models.Agent{}, &models.AgentCapability{}, &models.AgentWord{}, &models.APIKey{}, &models.Task{}, &models.TaskCapability{}, &models.TaskWord{},
		&models.Wallet{}, &models.Transfer{}, &models.LedgerSums{}, &models.Event{}, &models.EventLowWatermark{}, &models.IdempotencyKey{}, &models.Registrant{},
		&models.SecretKey{}, &models.Secret{}, &models.PreviousSecret{}, &models.Webhook{}, &models.Delivery{}, &models.Attempt{}, &models.AuditEntry{},
	}
}

// columnsWithoutField returns the columns without a field: generated columns, and copies
// for sorting and searching.
func columnsWithoutField() []string {
	return []string{"agents.reputation", "agents.words", "tasks.words", "agent_capabilities.reputation", "events.id"}
}

// TestSchemaDrift checks that the models match the tables of the migrations.
func TestSchemaDrift(t *testing.T) {
	t.Parallel()
	for _, difference := range findDrift(t, openDB(t, services.NewDatabase(t))) {
		t.Error(difference)
	}
}

// TestSchemaDrift_detected checks that findDrift detects a changed schema.
func TestSchemaDrift_detected(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ statement, want string }{
		{"ALTER TABLE wallets ADD COLUMN note TEXT", "models.Wallet has no field for the column wallets.note"},
		{"ALTER TABLE webhooks DROP COLUMN failing_since", "the table webhooks has no column failing_since, models.Webhook has"},
		{"ALTER TABLE secrets RENAME COLUMN hint TO beginning", "the table secrets has no column hint, models.Secret has"},
		{"DROP TABLE attempts", "there is no table attempts for models.Attempt"},
		{"CREATE TABLE notes (id TEXT PRIMARY KEY)" + services.ForEngine(" STRICT", ""), "there is no model of the table notes"},
		{"ALTER TABLE secrets DROP COLUMN hint; ALTER TABLE secrets ADD COLUMN hint TEXT", "secrets.hint can be null, models.Secret.Hint cannot"},
		{"ALTER TABLE deliveries DROP COLUMN last_error; ALTER TABLE deliveries ADD COLUMN last_error TEXT NOT NULL DEFAULT ''", "deliveries.last_error cannot be null, models.Delivery.LastError can"},
		{"ALTER TABLE secrets DROP COLUMN hint; ALTER TABLE secrets ADD COLUMN hint INTEGER NOT NULL DEFAULT 0", "secrets.hint is " + services.ForEngine("INTEGER", "integer") + ", models.Secret.Hint is " + services.ForEngine("TEXT", "text")},
	} {
		t.Run(row.statement, func(t *testing.T) {
			t.Parallel()
			db := openDB(t, services.NewDatabase(t))
			testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
				for statement := range strings.SplitSeq(row.statement, ";") {
					if err := tx.Exec(statement).Error; err != nil {
						return err
					}
				}
				return nil
			}))
			if got := findDrift(t, db); !slices.Contains(got, row.want) {
				t.Errorf("got %q, want %q in it", got, row.want)
			}
		})
	}
}

// TestSchemaDrift_nonStrictTable checks that findDrift detects a SQLite table that is not
// STRICT.
func TestSchemaDrift_nonStrictTable(t *testing.T) {
	t.Parallel()
	db := openDB(t, services.SQLitePath(t))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return tx.Exec("CREATE TABLE loose (id TEXT PRIMARY KEY)").Error }))
	if got, want := findDrift(t, db), "the table loose is not STRICT"; !slices.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}

// findDrift returns the differences between the models and the tables.
func findDrift(t *testing.T, db *database.DB) []string {
	t.Helper()
	var tables []struct {
		Name   string
		Strict bool
	}
	query := `SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'`
	if db.IsShared() {
		query = `SELECT table_name AS name, true AS strict FROM information_schema.tables WHERE table_schema = current_schema()`
	}
	query = "SELECT * FROM (" + query + ") t WHERE name NOT LIKE 'river_%' AND name NOT IN ('goose_db_version', 'replicas', 'event_head', 'usage')"
	testutil.Must(t, db.Read(t.Context()).Raw(query).Scan(&tables).Error)
	var differences, known []string
	for _, model := range modelTypes() {
		parsed, err := schema.Parse(model, &sync.Map{}, schema.NamingStrategy{})
		testutil.Must(t, err)
		known = append(known, parsed.Table)
		differences = append(differences, compareTable(t, db, parsed)...)
	}
	for _, table := range tables {
		if !slices.Contains(known, table.Name) {
			differences = append(differences, "there is no model of the table "+table.Name)
		}
		if !table.Strict {
			differences = append(differences, fmt.Sprintf("the table %s is not STRICT", table.Name))
		}
	}
	return differences
}

// compareTable returns the differences between a model and its table.
func compareTable(t *testing.T, db *database.DB, model *schema.Schema) (differences []string) {
	t.Helper()
	var columns []struct {
		Name    string
		Type    string
		NotNull bool `gorm:"column:notnull"`
	}
	query := `SELECT name, type, "notnull" OR pk > 0 AS "notnull" FROM pragma_table_xinfo(?)`
	if db.IsShared() {
		query = `SELECT column_name AS name, data_type AS type, is_nullable = 'NO' AS "notnull"
			FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ?`
	}
	testutil.Must(t, db.Read(t.Context()).Raw(query, model.Table).Scan(&columns).Error)
	if len(columns) == 0 {
		return []string{fmt.Sprintf("there is no table %s for %s", model.Table, model.ModelType)}
	}
	var stored []string
	for _, column := range columns {
		stored = append(stored, column.Name)
		qualified := model.Table + "." + column.Name
		field := model.FieldsByDBName[column.Name]
		switch {
		case slices.Contains(columnsWithoutField(), qualified):
		case db.IsShared() && qualified == "events.seq" && !column.NotNull: // assigned after the commit; readers select only rows that have it
		case field == nil:
			differences = append(differences, fmt.Sprintf("%s has no field for the column %s", model.ModelType, qualified))
		case columnType(db, field) != column.Type:
			differences = append(differences, fmt.Sprintf("%s is %s, %s.%s is %s", qualified, column.Type, model.ModelType, field.Name, columnType(db, field)))
		case !column.NotNull && !isNullable(field):
			differences = append(differences, fmt.Sprintf("%s can be null, %s.%s cannot", qualified, model.ModelType, field.Name))
		case column.NotNull && field.FieldType.Kind() == reflect.Pointer:
			differences = append(differences, fmt.Sprintf("%s cannot be null, %s.%s can", qualified, model.ModelType, field.Name))
		}
	}
	for _, name := range model.DBNames {
		if !slices.Contains(stored, name) {
			differences = append(differences, fmt.Sprintf("the table %s has no column %s, %s has", model.Table, name, model.ModelType))
		}
	}
	return differences
}

// columnType returns the column type of a field. A field with a JSON serializer is text.
func columnType(db *database.DB, field *schema.Field) string {
	text, bytes, number := "TEXT", "BLOB", "INTEGER"
	if db.IsShared() {
		text, bytes, number = "text", "bytea", "bigint"
	}
	fieldType := field.FieldType
	if fieldType.Kind() == reflect.Pointer {
		fieldType = fieldType.Elem()
	}
	switch {
	case field.Serializer != nil || fieldType.Kind() == reflect.String:
		return text
	case fieldType.Kind() == reflect.Slice:
		return bytes
	default:
		return number
	}
}

// isNullable reports whether a field can be null. A field with a JSON serializer is
// never null.
func isNullable(field *schema.Field) bool {
	return field.FieldType.Kind() == reflect.Pointer || field.FieldType.Kind() == reflect.Slice && field.Serializer == nil
}
