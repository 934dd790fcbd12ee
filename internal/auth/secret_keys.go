package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm/clause"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// ErrWrongKey is the error of [ClaimKey] when the database has values that the cipher
// cannot decrypt.
var ErrWrongKey = errors.New("the secret key cannot decrypt the secrets in the database")

// lostValue replaces a value whose key is lost. It is shorter than any encrypted value.
var lostValue = []byte{0} //nolint:gochecknoglobals // constant

// IsLost reports whether an encrypted value was given up, because its key is lost.
func IsLost(encrypted []byte) bool { return bytes.Equal(encrypted, lostValue) }

// ClaimKey records in the database that the current key of c encrypts its values. It
// returns ErrWrongKey and changes nothing if the values need a key that c does not
// have. On a database without a record, it finds out with the values themselves.
//
// If giveUp is not nil, ClaimKey instead gives up the values that c cannot decrypt, and
// calls giveUp with their number, in the same transaction.
func ClaimKey(ctx context.Context, db *database.DB, c *Cipher, tables []EncryptedTable, giveUp func(tx *database.Tx, lost int64) error) error {
	return db.Write(ctx, func(tx *database.Tx) error {
		claim := keyClaim{db: db, tx: tx, cipher: c, tables: tables}
		if err := claim.run(giveUp); err != nil {
			return fmt.Errorf("claim the secret key: %w", err)
		}
		return nil
	})
}

// HasEncrypted reports whether a table has encrypted values, except lost ones.
func HasEncrypted(ctx context.Context, db *database.DB, tables []EncryptedTable) (found bool, err error) {
	for _, table := range tables {
		query := "SELECT 1 FROM " + table.Name + " WHERE LENGTH(" + strings.Join(table.Columns, ") > 1 OR LENGTH(") + ") > 1 LIMIT 1"
		var rows []int
		if err := db.Read(ctx).Raw(query).Scan(&rows).Error; err != nil || len(rows) > 0 {
			return len(rows) > 0, err
		}
	}
	return false, nil
}

// KeepOnlyCurrentKey records that only the current key of c encrypts values of the
// database. Call it when everything is re-encrypted.
func KeepOnlyCurrentKey(tx *database.Tx, c *Cipher) error {
	if err := tx.Exec("DELETE FROM secret_keys WHERE id <> ?", c.current.id).Error; err != nil {
		return fmt.Errorf("record the secret key: %w", err)
	}
	return nil
}

// keyClaim is one run of [ClaimKey].
type keyClaim struct {
	db     *database.DB
	tx     *database.Tx
	cipher *Cipher
	tables []EncryptedTable
}

func (k *keyClaim) run(giveUp func(tx *database.Tx, lost int64) error) error {
	if err := k.tx.AdvisoryLock("secret keys"); err != nil {
		return err
	}
	var recorded []string
	if err := k.tx.Raw("SELECT id FROM secret_keys").Scan(&recorded).Error; err != nil {
		return err
	}
	usable, err := k.isUsable(recorded)
	if err != nil {
		return err
	}
	if !usable {
		if giveUp == nil {
			return ErrWrongKey
		}
		lost, err := k.giveUpUnreadable()
		if err != nil {
			return err
		}
		if err := giveUp(k.tx, lost); err != nil {
			return err
		}
	}
	if err := k.tx.Exec("DELETE FROM secret_keys WHERE id NOT IN ?", k.knownIDs()).Error; err != nil {
		return err
	}
	return k.record(k.cipher.current)
}

// isUsable reports whether the cipher has all keys that the values of the database
// need.
func (k *keyClaim) isUsable(recorded []string) (bool, error) {
	known := k.knownIDs()
	isKnown := func(id string) bool { return slices.Contains(known, id) }
	switch {
	case len(recorded) == 0:
		return k.adopt()
	case !slices.ContainsFunc(recorded, func(id string) bool { return !isKnown(id) }):
		return true, nil
	case k.db.IsShared(): // another replica can be about to use its key
		return false, nil
	}
	used, err := HasEncrypted(k.tx.Statement.Context, k.db, k.tables)
	return !used, err
}

func (k *keyClaim) knownIDs() (ids []string) {
	for _, key := range k.cipher.keys() {
		ids = append(ids, key.id)
	}
	return ids
}

func (k *keyClaim) record(key sealingKey) error {
	return k.tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&models.SecretKey{ID: key.id}).Error
}

// adopt records the keys of the cipher that open a value of a database without a
// record. It returns false if there are values and no key opens any of them.
func (k *keyClaim) adopt() (bool, error) {
	opened := map[string]bool{}
	values := 0
	for _, table := range k.tables {
		if len(opened) == len(k.knownIDs()) {
			break
		}
		err := k.eachValue(table, func(value encryptedValue) (more bool, err error) {
			values++
			_, key, err := k.cipher.open(value.encrypted, value.label)
			if err != nil || opened[key.id] {
				return true, nil //nolint:nilerr // another value may open
			}
			opened[key.id] = true
			return len(opened) < len(k.knownIDs()), k.record(key)
		})
		if err != nil {
			return false, err
		}
	}
	return values == 0 || len(opened) > 0, nil
}

// giveUpUnreadable marks the values that the cipher cannot decrypt as lost and returns
// their number.
func (k *keyClaim) giveUpUnreadable() (lost int64, err error) {
	for _, table := range k.tables {
		err := k.eachValue(table, func(value encryptedValue) (more bool, err error) {
			if _, _, err := k.cipher.open(value.encrypted, value.label); err == nil {
				return true, nil
			}
			lost++
			args := []any{lostValue}
			for _, part := range value.key {
				args = append(args, part)
			}
			return true, k.tx.ExecOne("UPDATE "+table.Name+" SET "+value.column+" = ? WHERE "+strings.Join(table.KeyColumns, " = ? AND ")+" = ?", args...)
		})
		if err != nil {
			return 0, err
		}
	}
	return lost, nil
}

// encryptedValue is a value in a column of a row.
type encryptedValue struct {
	key           []string
	column, label string
	encrypted     []byte
}

// eachValue calls fn with each encrypted value of a table, page by page, while it
// returns true. It skips lost values.
func (k *keyClaim) eachValue(table EncryptedTable, fn func(encryptedValue) (more bool, err error)) error {
	last := make([]string, len(table.KeyColumns))
	for {
		page := reencryptBatch{EncryptedTable: table, lastKey: last}
		rows, err := page.lockRows(k.tx)
		if err != nil {
			return err
		}
		for _, row := range rows {
			for i, encrypted := range row.values {
				if encrypted == nil || IsLost(encrypted) {
					continue
				}
				if more, err := fn(encryptedValue{row.key, table.Columns[i], table.Label(row.key), encrypted}); err != nil || !more {
					return err
				}
			}
			last = row.key
		}
		if len(rows) < reencryptBatchSize {
			return nil
		}
	}
}
