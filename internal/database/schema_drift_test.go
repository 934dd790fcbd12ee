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

// modelTypes are the models, one a table.
func modelTypes() []any {
	return []any{
		&models.Agent{}, &models.AgentCapability{}, &models.APIKey{}, &models.Task{}, &models.TaskCapability{},
		&models.Wallet{}, &models.Transfer{}, &models.LedgerSums{}, &models.Event{}, &models.EventHorizon{}, &models.IdempotencyKey{}, &models.Registrant{},
		&models.Secret{}, &models.Webhook{}, &models.Delivery{}, &models.Attempt{}, &models.AuditEntry{},
	}
}

// columnsWithoutField are the columns that are there to sort by only, or are made of
// others.
func columnsWithoutField() []string {
	return []string{"agents.reputation", "agent_capabilities.reputation", "events.id"}
}

// TestSchemaDrift: the models and the migrations have the same tables and columns.
func TestSchemaDrift(t *testing.T) {
	t.Parallel()
	for _, difference := range findDrift(t, openDB(t, services.NewDatabase(t))) {
		t.Error(difference)
	}
}

// TestSchemaDrift_detected: the schema changed alone is told of, whatever it is.
func TestSchemaDrift_detected(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ statement, says string }{
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
			if got := findDrift(t, db); !slices.Contains(got, row.says) {
				t.Errorf("got %q, want %q among them", got, row.says)
			}
		})
	}
}

// TestSchemaDrift_nonStrictTable: on SQLitePath every table is STRICT.
func TestSchemaDrift_nonStrictTable(t *testing.T) {
	t.Parallel()
	db := openDB(t, services.SQLitePath(t))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return tx.Exec("CREATE TABLE loose (id TEXT PRIMARY KEY)").Error }))
	if got, says := findDrift(t, db), "the table loose is not STRICT"; !slices.Contains(got, says) {
		t.Errorf("got %q, want %q among them", got, says)
	}
}

// findDrift tells where the models and the tables differ.
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
	var found, known []string
	for _, model := range modelTypes() {
		parsed, err := schema.Parse(model, &sync.Map{}, schema.NamingStrategy{})
		testutil.Must(t, err)
		known = append(known, parsed.Table)
		found = append(found, compareTable(t, db, parsed)...)
	}
	for _, table := range tables {
		if !slices.Contains(known, table.Name) {
			found = append(found, "there is no model of the table "+table.Name)
		}
		if !table.Strict {
			found = append(found, fmt.Sprintf("the table %s is not STRICT", table.Name))
		}
	}
	return found
}

// compareTable tells where a model and its table differ.
func compareTable(t *testing.T, db *database.DB, model *schema.Schema) (found []string) {
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
		place := model.Table + "." + column.Name
		field := model.FieldsByDBName[column.Name]
		switch {
		case slices.Contains(columnsWithoutField(), place):
		case db.IsShared() && place == "events.seq" && !column.NotNull: // it comes after the commit, and who reads asks for it
		case field == nil:
			found = append(found, fmt.Sprintf("%s has no field for the column %s", model.ModelType, place))
		case columnType(db, field) != column.Type:
			found = append(found, fmt.Sprintf("%s is %s, %s.%s is %s", place, column.Type, model.ModelType, field.Name, columnType(db, field)))
		case !column.NotNull && !isNullable(field):
			found = append(found, fmt.Sprintf("%s can be null, %s.%s cannot", place, model.ModelType, field.Name))
		case column.NotNull && field.FieldType.Kind() == reflect.Pointer:
			found = append(found, fmt.Sprintf("%s cannot be null, %s.%s can", place, model.ModelType, field.Name))
		}
	}
	for _, name := range model.DBNames {
		if !slices.Contains(stored, name) {
			found = append(found, fmt.Sprintf("the table %s has no column %s, %s has", model.Table, name, model.ModelType))
		}
	}
	return found
}

// columnType is the type of the column that keeps a field; what is written as JSON is
// text.
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

// isNullable reports whether a field has a value for null: nil bytes are one, a
// list that is written as JSON never is.
func isNullable(field *schema.Field) bool {
	return field.FieldType.Kind() == reflect.Pointer || field.FieldType.Kind() == reflect.Slice && field.Serializer == nil
}
