// Package failpoint names the steps at which a test has the process fail. In the
// program that is built for use nothing is there: Hit is empty. With the build tag
// failpoints AGENTMARKET_FAILPOINT names a file that says where and how, as
// "STEP=panic", "STEP=kill" or "STEP=stall". The next time that the step is reached
// it happens, once: the file is taken away.
package failpoint
