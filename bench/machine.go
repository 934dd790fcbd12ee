package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of CPU time in /proc, which is fixed in Linux.
const clockTick = time.Second / 100

// usage is the CPU time and memory of a process.
type usage struct {
	cpu time.Duration
	rss int64 // resident bytes
}

func (s *server) usage() (usage, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid), "stat"))
	if err != nil {
		return usage{}, err
	}
	return parseStat(text)
}

// parseStat parses /proc/PID/stat. The program's name, in parentheses, may contain spaces
// and parentheses.
func parseStat(text []byte) (usage, error) {
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 22 {
		return usage{}, fmt.Errorf("no process statistics: %q", text)
	}
	var figures [3]int64
	for i, field := range []int{11, 12, 21} { // utime, stime, rss
		var err error
		if figures[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return usage{}, fmt.Errorf("process statistics: %w", err)
		}
	}
	return usage{
		cpu: time.Duration(figures[0]+figures[1]) * clockTick,
		rss: figures[2] * int64(os.Getpagesize()),
	}, nil
}

// machineCPU returns the CPU time of all programs of the machine.
func machineCPU() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var busy int64
	for i, field := range strings.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq
			if n, err := strconv.ParseInt(field, 10, 64); err == nil {
				busy += n
			}
		}
	}
	return time.Duration(busy) * clockTick
}

// processCPU returns the CPU time of the benchmark itself.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// raiseOpenFileLimit raises the limit of open files of this process and the servers it
// starts to the maximum.
func raiseOpenFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise limit of open files: %w", err)
	}
	return nil
}

// describeMachine returns the CPU model and the number of cores.
func describeMachine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s)", runtime.NumCPU(), model)
}
