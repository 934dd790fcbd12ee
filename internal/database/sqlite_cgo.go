//go:build cgo

package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net/url"

	"github.com/mattn/go-sqlite3"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
)

// connector opens the connections of one pool with the C library, through cgo.
type connector struct {
	dsn    string
	driver *sqlite3.SQLiteDriver
}

// newConnector returns a connector for a file: URI. params are those of go-sqlite3.
// If versions is not nil, the connections report row changes to it.
func newConnector(file string, params url.Values, versions *rowVersions) (driver.Connector, error) {
	c := &connector{dsn: file + "?" + params.Encode(), driver: &sqlite3.SQLiteDriver{}}
	if versions != nil {
		c.driver.ConnectHook = func(conn *sqlite3.SQLiteConn) error {
			err := conn.RegisterFunc("record_change", versions.recordChange, false)
			if triggers := versions.reconnectTriggers(); err == nil && triggers != "" {
				_, err = conn.Exec(triggers, nil)
			}
			return err
		}
	}
	return c, nil
}

// Connect implements [driver.Connector].
func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver implements [driver.Connector].
func (c *connector) Driver() driver.Driver { return c.driver }

// resultCode returns SQLite's extended result code, or 0 for other errors.
func resultCode(err error) int {
	if sqliteErr, ok := errors.AsType[sqlite3.Error](err); ok {
		return int(sqliteErr.ExtendedCode)
	}
	return 0
}

func sqliteDialector(pool *sql.DB) gorm.Dialector { return sqlite.New(sqlite.Config{Conn: pool}) }
