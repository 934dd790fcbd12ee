package database

import (
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"
)

// bucketCount is the number of versions that all tracked rows share. A change of one
// row also counts as a change of the other rows in its bucket.
const bucketCount = 1 << 16

// rowVersions records the data version of the last change of each tracked row.
// Triggers on the write connection report the changes, so no statement is missed.
type rowVersions struct {
	seed              maphash.Seed
	versions          [bucketCount]atomic.Int64 // data versions
	triggersInstalled atomic.Bool

	mu      sync.Mutex
	pending []uint32 // buckets changed in the current transaction
}

// trackedTables maps the tables with tracked rows to their key columns.
var trackedTables = map[string]string{"tasks": "id", "agents": "id", "wallets": "agent_id"} //nolint:gochecknoglobals // constant

func newRowVersions() *rowVersions { return &rowVersions{seed: maphash.MakeSeed()} }

func (c *rowVersions) bucket(table, id string) uint32 {
	return uint32(maphash.Comparable(c.seed, [2]string{table, id}) % bucketCount)
}

// recordChange records a changed row. The triggers call it as record_change.
func (c *rowVersions) recordChange(table, id string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = append(c.pending, c.bucket(table, id))
	return 0
}

// reconnectTriggers returns the SQL that creates the triggers on a new connection
// that replaces a broken one. It is empty before installTriggers.
func (c *rowVersions) reconnectTriggers() string {
	if !c.triggersInstalled.Load() {
		return ""
	}
	return triggerSQL()
}

// installTriggers creates the triggers on the write connection.
func (c *rowVersions) installTriggers(writer *gorm.DB) error {
	if err := writer.Exec(triggerSQL()).Error; err != nil {
		return fmt.Errorf("create change triggers: %w", err)
	}
	c.triggersInstalled.Store(true)
	return nil
}

// triggerSQL returns the SQL that creates the triggers. They are temporary: each
// connection needs its own.
func triggerSQL() string {
	var sql strings.Builder
	for table, key := range trackedTables {
		for verb, row := range map[string]string{"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"} {
			fmt.Fprintf(&sql, "CREATE TEMP TRIGGER changed_%[1]s_%[2]s AFTER %[2]s ON main.%[1]s BEGIN SELECT record_change('%[1]s', %[3]s.%[4]s); END;\n",
				table, verb, row, key)
		}
	}
	return sql.String()
}

// publish gives the rows changed in the current transaction a new version. It is
// called after a commit and after a rollback.
func (c *rowVersions) publish(version int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, bucket := range c.pending {
		c.versions[bucket].Store(version)
	}
	c.pending = c.pending[:0]
}
