package database

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// IsPostgres reports whether address is a postgres:// or postgresql:// URL.
func IsPostgres(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// checkPath rejects a file path that looks like another kind of address. The
// error omits the address, because it can contain a password.
func checkPath(address string) error {
	if address == "" || strings.HasPrefix(address, ":") { // :memory: is lost when the process ends
		return fmt.Errorf("database: %q is not a file path", address)
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
