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

// connector opens the connections of one pool with SQLite itself, through cgo.
type connector struct {
	dsn    string
	driver *sqlite3.SQLiteDriver
}

// newConnector opens a file: address with the parameters of go-sqlite3. Connections
// call watched, unless it is nil.
func newConnector(file string, params url.Values, watched *rowVersions) (driver.Connector, error) {
	opened := &connector{dsn: file + "?" + params.Encode(), driver: &sqlite3.SQLiteDriver{}}
	if watched != nil {
		opened.driver.ConnectHook = func(conn *sqlite3.SQLiteConn) error {
			err := conn.RegisterFunc("record_change", watched.recordChange, false)
			if again := watched.reconnectTriggers(); err == nil && again != "" {
				_, err = conn.Exec(again, nil)
			}
			return err
		}
	}
	return opened, nil
}

// Connect opens one.
func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver is the driver.
func (c *connector) Driver() driver.Driver { return c.driver }

// resultCode is the extended result code that SQLite gave, 0 when it gave none.
func resultCode(err error) int {
	if failed, ok := errors.AsType[sqlite3.Error](err); ok {
		return int(failed.ExtendedCode)
	}
	return 0
}

func sqliteDialector(pool *sql.DB) gorm.Dialector { return sqlite.New(sqlite.Config{Conn: pool}) }
