package database

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// IsPostgres reports whether an address is one of PostgreSQL.
func IsPostgres(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// checkPath refuses as the path of a file what was meant to be something else,
// which may have a password in it.
func checkPath(address string) error {
	if address == "" || strings.HasPrefix(address, ":") { // SQLite keeps :memory: nowhere
		return fmt.Errorf("database: %q is not the path of a file", address)
	}
	if scheme, _, ok := strings.Cut(address, "://"); ok {
		return fmt.Errorf("database %s://…: give a postgres:// address or the path of a SQLite file", scheme)
	}
	keywords := slices.ContainsFunc(strings.Fields(address), func(word string) bool {
		name, _, ok := strings.Cut(word, "=")
		return ok && slices.Contains([]string{"host", "hostaddr", "port", "user", "password", "dbname", "service"}, name)
	})
	if keywords || strings.HasPrefix(address, "postgres:") || strings.HasPrefix(address, "postgresql:") {
		return errors.New("database: give a postgres:// address or the path of a SQLite file")
	}
	return nil
}
