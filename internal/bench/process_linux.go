package bench

import "syscall"

// dieWithParent makes the process end when the program that started it dies,
// however it dies.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
