// Package faultfs is a file system in memory that fails, tears and forgets on command. It
// implements journal.FS for the tests of everything that must survive a disk.
//
// It keeps two states: what a running process sees, and what is durable. A write becomes
// durable sector by sector (512 bytes) with File.Sync; a creation, rename or removal with
// SyncDir of its directory. In between stands the choice of the tests:
//
//   - Kill ends the process but not the machine: it returns the visible state as a file
//     system for the next process, and nothing that the dead one does can change it.
//   - PowerCut also forgets: of the sectors written since the last Sync a random
//     subset survives, in any order; of the pending directory operations a random
//     prefix, since file systems that journal their metadata keep its order.
//   - FailAt and FailFrom let calls fail; a failed write may have written a part,
//     a failed Sync forgets what it should have made durable, as Linux does, and the
//     next one succeeds without it.
//   - SetQuota bounds the blocks that may be in use; beyond it calls fail with ENOSPC.
//     Blocks are reserved by Allocate, or taken by the first write (SparseAllocate).
//   - Flip, ReadFile, WriteFile and Clone serve tests that damage files.
//
// All methods may be called from any goroutine. Equal calls with equally seeded generators
// give equal outcomes.
package faultfs
