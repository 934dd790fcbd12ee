// Package failpoint makes a process fail at a named step, for tests. In a normal
// build [Hit] does nothing. With the build tag failpoints, the environment variable
// AGENTMARKET_FAILPOINT names a file with the text STEP=panic, STEP=kill or
// STEP=stall. The next time the process reaches the step, Hit removes the file and
// fails in this way.
package failpoint
