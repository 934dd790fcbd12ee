package database

import (
	"fmt"
	"time"

	"github.com/riverqueue/river/rivertype"
)

// QueueStats describes the jobs of one queue that are in one state.
type QueueStats struct {
	Queue string
	State rivertype.JobState
	Jobs  int64
	Lag   time.Duration // how long the first job is overdue; 0 if none is
}

// ReadQueueStats counts unfinished and discarded jobs by queue and state. It reads
// only an index, and only the entries of these jobs.
func ReadQueueStats(snapshot *Snapshot) ([]QueueStats, error) {
	lag := "(julianday('now') - julianday(MIN(scheduled_at))) * 86400"
	if snapshot.Name() == "postgres" {
		lag = "EXTRACT(epoch FROM clock_timestamp() - MIN(scheduled_at))"
	}
	var rows []struct {
		Queue string
		State rivertype.JobState
		Jobs  int64
		Lag   float64 // seconds
	}
	err := snapshot.Raw("SELECT queue, state, COUNT(*) AS jobs, " + lag + ` AS lag FROM river_job
		WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled', 'discarded') GROUP BY state, queue`).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	stats := make([]QueueStats, len(rows))
	for i, row := range rows {
		stats[i] = QueueStats{Queue: row.Queue, State: row.State, Jobs: row.Jobs}
		switch row.State {
		case rivertype.JobStateAvailable, rivertype.JobStateRetryable, rivertype.JobStateScheduled:
			stats[i].Lag = time.Duration(max(row.Lag, 0) * float64(time.Second))
		case rivertype.JobStateRunning, rivertype.JobStatePending, rivertype.JobStateDiscarded, // not waiting for a worker
			rivertype.JobStateCompleted, rivertype.JobStateCancelled:
		}
	}
	return stats, nil
}
