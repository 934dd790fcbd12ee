package database

import (
	"fmt"
	"time"

	"github.com/riverqueue/river/rivertype"
)

// QueueStats is the jobs of one queue that are in one state.
type QueueStats struct {
	Queue string
	State rivertype.JobState
	Jobs  int64
	Lag   time.Duration // for how long the first of them has been due, 0 when none waits
}

// ReadQueueStats counts the jobs that are not done, by queue and state. It reads an index
// alone, as much of it as there are such jobs.
func ReadQueueStats(state *Snapshot) ([]QueueStats, error) {
	late := "(julianday('now') - julianday(MIN(scheduled_at))) * 86400"
	if state.Name() == "postgres" {
		late = "EXTRACT(epoch FROM clock_timestamp() - MIN(scheduled_at))"
	}
	var rows []struct {
		Queue string
		State rivertype.JobState
		Jobs  int64
		Late  float64 // seconds
	}
	err := state.Raw("SELECT queue, state, COUNT(*) AS jobs, " + late + ` AS late FROM river_job
		WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled', 'discarded') GROUP BY state, queue`).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	queues := make([]QueueStats, len(rows))
	for i, row := range rows {
		queues[i] = QueueStats{Queue: row.Queue, State: row.State, Jobs: row.Jobs}
		switch row.State {
		case rivertype.JobStateAvailable, rivertype.JobStateRetryable, rivertype.JobStateScheduled:
			queues[i].Lag = time.Duration(max(row.Late, 0) * float64(time.Second))
		case rivertype.JobStateRunning, rivertype.JobStatePending, rivertype.JobStateDiscarded, // somebody is at it, or nobody ever will be
			rivertype.JobStateCompleted, rivertype.JobStateCancelled:
		}
	}
	return queues, nil
}
