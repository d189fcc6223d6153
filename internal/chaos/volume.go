package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// mount makes a small volume. Only root may.
func (w *World) mount(dir string, mebibytes int) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("making a volume: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mebibytes)); err != nil {
		return fmt.Errorf("mounting a volume at %s: %w", dir, err)
	}
	w.volumes = append(w.volumes, dir)
	return nil
}

func unmount(dir string) error {
	if err := syscall.Unmount(dir, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", dir, err)
	}
	return nil
}

// resize gives a volume another size.
func resize(ctx context.Context, dir string, mebibytes int) error {
	if out, err := exec.CommandContext(ctx, "mount", "-o", fmt.Sprintf("remount,size=%dm", mebibytes), dir).CombinedOutput(); err != nil {
		return fmt.Errorf("resizing %s: %w: %s", dir, err, out)
	}
	return nil
}

// ballast is the file that fills a volume.
const ballast = "ballast"

// fillVolume leaves no room.
func fillVolume(dir string) error {
	f, err := os.Create(filepath.Join(dir, ballast))
	if err != nil {
		return fmt.Errorf("filling a volume: %w", err)
	}
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				break
			}
			block = block[:len(block)/2]
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("filling a volume: %w", err)
	}
	return nil
}

func emptyVolume(dir string) error {
	if err := os.Remove(filepath.Join(dir, ballast)); err != nil {
		return fmt.Errorf("emptying a volume: %w", err)
	}
	return nil
}

// makeDisk makes a file with an empty file system.
func makeDisk(ctx context.Context, image string, mebibytes int64) error {
	f, err := os.Create(image)
	if err != nil {
		return fmt.Errorf("making a disk: %w", err)
	}
	if err := errors.Join(f.Truncate(mebibytes<<20), f.Close()); err != nil {
		return fmt.Errorf("making a disk: %w", err)
	}
	_, err = run(ctx, "", nil, "mkfs.ext4", "-q", image)
	return err
}

// mountDisk mounts the file system of a file, which commits its journal every
// second. Only root may.
func (w *World) mountDisk(ctx context.Context, image, dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("mounting a disk: %w", err)
	}
	if _, err := run(ctx, "", nil, "mount", "-o", "loop,commit=1", image, dir); err != nil {
		return err
	}
	w.volumes = append(w.volumes, dir)
	return nil
}

// checkDisk mends a file system that was not unmounted.
func checkDisk(ctx context.Context, image string) error {
	out, err := exec.CommandContext(ctx, "e2fsck", "-fy", image).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil // it has mended something
	}
	if err != nil {
		return fmt.Errorf("checking a disk: %w: %s", err, out)
	}
	return nil
}

// syncDisk writes everything of a file system to its disk.
func syncDisk(ctx context.Context, dir string) error {
	_, err := run(ctx, "", nil, "sync", "-f", dir)
	return err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	out, err := os.Create(to)
	if err == nil {
		_, err = io.Copy(out, in)
		err = errors.Join(err, out.Close())
	}
	if err := errors.Join(err, in.Close()); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return nil
}
