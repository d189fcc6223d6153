package localpg

import "syscall"

// dieWithParent makes the server shut down at once when the program that
// started it dies, however it dies.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
