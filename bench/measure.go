package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// measure runs the selected experiments.
func (b *bench) measure(ctx context.Context) ([]row, error) {
	var rows []row
	for _, e := range slices.Concat(b.allExperiments(), b.growthExperiments()) {
		if !b.isSelected(e) {
			continue
		}
		done, err := b.runExperiment(ctx, e)
		if err != nil {
			return nil, err
		}
		rows = append(rows, done...)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("unknown work %q", b.only)
	}
	return rows, nil
}

// isSelected reports whether to run an experiment. Growth experiments take long and must be
// named.
func (b *bench) isSelected(e experiment) bool {
	name := e.workloads[0].name
	if len(b.only) == 0 {
		return !strings.HasPrefix(name, "growth")
	}
	return slices.ContainsFunc(b.only, func(part string) bool { return strings.HasPrefix(name, part) })
}

// runExperiment measures every contender once a round. A contender that fails is left out
// from then on. The error is that of an interrupted run.
func (b *bench) runExperiment(ctx context.Context, e experiment) ([]row, error) {
	samples := make([][][]sample, len(e.contenders)) // by contender, round, workload
	failed := make([]error, len(e.contenders))
	measures := make([]measureFunc, len(e.contenders))
	refuse := func(i int, err error) {
		failed[i] = err
		slog.Warn("refused", slog.String("work", e.workloads[0].name), slog.String("server", e.contenders[i].name), slog.Any("error", err))
	}
	for i, c := range e.contenders {
		measure, stop, err := c.start(ctx)
		if err != nil {
			refuse(i, err)
			continue
		}
		defer stop()
		measures[i] = measure
	}
	for round := range b.rounds {
		for turn := range e.contenders {
			i := turn
			if round%2 == 1 { // reversed, so that no contender is always first
				i = len(e.contenders) - 1 - turn
			}
			if failed[i] != nil {
				continue
			}
			got, err := measures[i](ctx)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				refuse(i, err)
				continue
			}
			samples[i] = append(samples[i], got)
			slog.Info("measured", slog.String("work", e.workloads[0].name), slog.Int("round", round+1),
				slog.String("server", e.contenders[i].name), slog.String("figure", formatFigure(got[0].figure)+e.workloads[0].unit))
		}
	}
	return e.rows(samples, failed), nil
}

// rows groups the samples by workload.
func (e experiment) rows(samples [][][]sample, failed []error) []row {
	var rows []row
	for w, work := range e.workloads {
		for i, c := range e.contenders {
			r := row{workload: work, contender: c.name, samples: workSamples(samples[i], w), failure: failed[i]}
			if w < len(c.goals) {
				r.goal = c.goals[w]
			}
			if i != e.reference {
				r.reference = workSamples(samples[e.reference], w)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

func workSamples(rounds [][]sample, work int) []sample {
	samples := []sample{}
	for _, round := range rounds {
		samples = append(samples, round[work])
	}
	return samples
}

// contenderErrors returns the error of each contender that failed, once.
func contenderErrors(rows []row) error {
	var errs []error
	for _, r := range rows {
		if r.failure != nil && !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, r.failure) }) {
			errs = append(errs, fmt.Errorf("%s, %s: %w", r.workload.name, r.contender, r.failure))
		}
	}
	return errors.Join(errs...)
}
