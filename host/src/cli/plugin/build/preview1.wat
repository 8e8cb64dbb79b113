;; What stands between WASI preview 1, which Go and the C library are built for, and the interfaces of this server.
;;
;; The usual adapter traps under Go: its garbage collector reads the clock while the host has the guest allocate memory,
;; and a component must not call out then. Here the clock counts by itself, output goes to the plugin's log, random
;; numbers come from `context`, a sleep ends at once, and all that is about files and sockets fails.
;;
;; `preview1.wasm` beside it is made of this file by a test: run it with UPDATE_SNAPSHOTS=1 after a change.
(module
  (import "env" "memory" (memory 0))
  (import "signalbox:plugin/log@1.0.0" "write" (func $log (param i32 i32 i32)))
  (import "signalbox:plugin/context@1.0.0" "random" (func $random (result i32)))
  (import "signalbox:plugin/context@1.0.0" "now" (func $now (result i64)))

  ;; Nanoseconds since 1970. Begins with the host's time at the first question, which Go asks while it starts, and goes on
  ;; by a microsecond with each further one.
  (global $clock (mut i64) (i64.const 0))

  (func $tick (result i64)
    (if (i64.eqz (global.get $clock))
      (then (global.set $clock (i64.mul (call $now) (i64.const 1000000)))))
    (global.set $clock (i64.add (global.get $clock) (i64.const 1000)))
    (global.get $clock))

  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $time i32) (result i32)
    (i64.store (local.get $time) (call $tick))
    (i32.const 0))
  (func (export "clock_res_get") (param $id i32) (param $resolution i32) (result i32)
    (i64.store (local.get $resolution) (i64.const 1000))
    (i32.const 0))

  (func (export "random_get") (param $at i32) (param $length i32) (result i32)
    (local $word i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $length)))
        (local.set $word (call $random))
        (if (i32.ge_u (local.get $length) (i32.const 4))
          (then
            (i32.store align=1 (local.get $at) (local.get $word))
            (local.set $at (i32.add (local.get $at) (i32.const 4)))
            (local.set $length (i32.sub (local.get $length) (i32.const 4))))
          (else
            (i32.store8 (local.get $at) (local.get $word))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (local.set $length (i32.sub (local.get $length) (i32.const 1)))))
        (br $next)))
    (i32.const 0))

  ;; Standard output is logged as `info`, standard error as `warn`, each buffer as a line. Others are closed: EBADF.
  (func (export "fd_write") (param $fd i32) (param $vectors i32) (param $count i32) (param $written i32) (result i32)
    (local $at i32) (local $length i32) (local $sum i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1))
      (then (return (i32.const 8))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $at (i32.load (local.get $vectors)))
        (local.set $length (i32.load offset=4 (local.get $vectors)))
        (local.set $sum (i32.add (local.get $sum) (local.get $length)))
        (call $line (local.get $fd) (local.get $at) (local.get $length))
        (local.set $vectors (i32.add (local.get $vectors) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))
  ;; Without the newline at its end; nothing where nothing else is there.
  (func $line (param $level i32) (param $at i32) (param $length i32)
    (if (i32.eqz (local.get $length)) (then (return)))
    (if (i32.eq
          (i32.load8_u (i32.sub (i32.add (local.get $at) (local.get $length)) (i32.const 1)))
          (i32.const 10))
      (then (local.set $length (i32.sub (local.get $length) (i32.const 1)))))
    (if (i32.eqz (local.get $length)) (then (return)))
    (call $log (local.get $level) (local.get $at) (local.get $length)))

  ;; The three standard ones are character devices.
  (func (export "fd_fdstat_get") (param $fd i32) (param $stat i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (i64.store (local.get $stat) (i64.const 2))
    (i64.store offset=8 (local.get $stat) (i64.const 0))
    (i64.store offset=16 (local.get $stat) (i64.const 0))
    (i32.const 0))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 0))
  (func (export "fd_read") (param $fd i32) (param $vectors i32) (param $count i32) (param $read i32) (result i32)
    (if (local.get $fd) (then (return (i32.const 8))))
    (i32.store (local.get $read) (i32.const 0))
    (i32.const 0))

  ;; No arguments, no environment.
  (func (export "args_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func (export "environ_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "proc_exit") (param i32) (unreachable))
  (func (export "proc_raise") (param i32) (result i32) (unreachable))

  ;; Each wait for the clock is over at once, and the clock has moved on by as much. What waits for anything else waits
  ;; for what never comes, and is left out.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $events i32) (result i32)
    (local $happened i32) (local $time i64)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (if (i32.eqz (i32.load8_u offset=8 (local.get $in)))
          (then
            (local.set $time (i64.load offset=24 (local.get $in)))
            (if (i32.eqz (i32.and (i32.load16_u offset=40 (local.get $in)) (i32.const 1)))
              (then (local.set $time (i64.add (call $tick) (local.get $time)))))
            (if (i64.gt_u (local.get $time) (global.get $clock))
              (then (global.set $clock (local.get $time))))
            (i64.store (local.get $out) (i64.load (local.get $in)))
            (i64.store offset=8 (local.get $out) (i64.const 0))
            (i64.store offset=16 (local.get $out) (i64.const 0))
            (i64.store offset=24 (local.get $out) (i64.const 0))
            (local.set $out (i32.add (local.get $out) (i32.const 32)))
            (local.set $happened (i32.add (local.get $happened) (i32.const 1)))))
        (local.set $in (i32.add (local.get $in) (i32.const 48)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $events) (local.get $happened))
    (if (result i32) (local.get $happened) (then (i32.const 0)) (else (i32.const 52))))

  ;; Files and sockets: there are none. EBADF, because whoever asks names one.
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "fd_datasync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (i32.const 8))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (i32.const 8))
  (func (export "fd_renumber") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_sync") (param i32) (result i32) (i32.const 8))
  (func (export "fd_tell") (param i32 i32) (result i32) (i32.const 8))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (i32.const 8))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (i32.const 8))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (i32.const 8))
)
