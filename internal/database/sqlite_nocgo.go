//go:build !cgo

package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"

	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	modernc "modernc.org/sqlite"
)

// connector opens the connections of one pool with SQLite translated to Go.
type connector struct {
	dsn    string
	driver *modernc.Driver
}

// newConnector returns a connector for a file: URI. params are those of go-sqlite3.
// If versions is not nil, the connections report row changes to it.
func newConnector(file string, params url.Values, versions *rowVersions) (driver.Connector, error) {
	dsnParams := url.Values{}
	for name, values := range params {
		switch name {
		case "_recursive_triggers", "_cache_size":
			dsnParams.Add("_pragma", fmt.Sprintf("%s(%s)", name[1:], values[0]))
		case "_stmt_cache_size": // not supported
		default: // same name in both drivers
			dsnParams[name] = values
		}
	}
	c := &connector{dsn: file + "?" + dsnParams.Encode(), driver: &modernc.Driver{}}
	if versions == nil {
		return c, nil
	}
	c.driver.RegisterConnectionHook(func(conn modernc.ExecQuerierContext, _ string) error {
		triggers := versions.reconnectTriggers()
		if triggers == "" {
			return nil
		}
		_, err := conn.ExecContext(context.Background(), triggers, nil) //nolint:forbidigo // the hook has no context
		return err
	})
	return c, c.driver.RegisterScalarFunction("record_change", 2, func(_ *modernc.FunctionContext, args []driver.Value) (driver.Value, error) {
		table, ok := args[0].(string)
		id, idOK := args[1].(string)
		if !ok || !idOK {
			return nil, fmt.Errorf("record_change got %T and %T, want two texts", args[0], args[1])
		}
		return versions.recordChange(table, id), nil
	})
}

// Connect implements [driver.Connector].
func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements [driver.Connector].
func (c *connector) Driver() driver.Driver { return c.driver }

// dialector is gorm's SQLite dialector with error codes of this driver.
type dialector struct{ *sqlite.Dialector }

func sqliteDialector(pool *sql.DB) gorm.Dialector {
	return dialector{&sqlite.Dialector{Conn: pool}}
}

// resultCode returns SQLite's extended result code, or 0 for other errors.
func resultCode(err error) int {
	if sqliteErr, ok := errors.AsType[*modernc.Error](err); ok {
		return sqliteErr.Code()
	}
	return 0
}

// Translate converts constraint errors to gorm's errors. The numbers are SQLite's
// extended result codes.
func (dialector) Translate(err error) error {
	switch resultCode(err) {
	case 1555, 2067: // primary key, unique
		return gorm.ErrDuplicatedKey
	case 787: // foreign key
		return gorm.ErrForeignKeyViolated
	default:
		return err
	}
}
