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

// connector opens the connections of one pool with SQLite as Go code.
type connector struct {
	dsn    string
	driver *modernc.Driver
}

// newConnector opens a file: address with the parameters of go-sqlite3. Connections
// call watched, unless it is nil.
func newConnector(file string, params url.Values, watched *rowVersions) (driver.Connector, error) {
	own := url.Values{}
	for name, values := range params {
		switch name {
		case "_recursive_triggers", "_cache_size":
			own.Add("_pragma", fmt.Sprintf("%s(%s)", name[1:], values[0]))
		case "_stmt_cache_size": // it keeps no statements
		default: // the others it knows
			own[name] = values
		}
	}
	opened := &connector{dsn: file + "?" + own.Encode(), driver: &modernc.Driver{}}
	if watched == nil {
		return opened, nil
	}
	opened.driver.RegisterConnectionHook(func(conn modernc.ExecQuerierContext, _ string) error {
		again := watched.reconnectTriggers()
		if again == "" {
			return nil
		}
		_, err := conn.ExecContext(context.Background(), again, nil) //nolint:forbidigo // it is the connection's own
		return err
	})
	return opened, opened.driver.RegisterScalarFunction("record_change", 2, func(_ *modernc.FunctionContext, args []driver.Value) (driver.Value, error) {
		table, ok := args[0].(string)
		id, also := args[1].(string)
		if !ok || !also {
			return nil, fmt.Errorf("record_change of a %T and a %T", args[0], args[1])
		}
		return watched.recordChange(table, id), nil
	})
}

// Connect opens one.
func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver is the driver.
func (c *connector) Driver() driver.Driver { return c.driver }

// dialector is gorm's for SQLite, with the errors of this driver.
type dialector struct{ *sqlite.Dialector }

func sqliteDialector(pool *sql.DB) gorm.Dialector {
	return dialector{&sqlite.Dialector{Conn: pool}}
}

// resultCode is the extended result code that SQLite gave, 0 when it gave none.
func resultCode(err error) int {
	if failed, ok := errors.AsType[*modernc.Error](err); ok {
		return failed.Code()
	}
	return 0
}

// Translate gives the errors of broken constraints gorm's names. The numbers are
// SQLite's extended result codes.
func (dialector) Translate(err error) error {
	switch resultCode(err) {
	case 1555, 2067: // primary key, unique
		return gorm.ErrDuplicatedKey
	case 787:
		return gorm.ErrForeignKeyViolated
	default:
		return err
	}
}
