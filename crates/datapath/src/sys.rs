// SPDX-License-Identifier: Apache-2.0
//! The few `bpf(2)` commands that aya does not offer: batches, links by interface index, test runs. All `unsafe` of this
//! crate is here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zerocopy::{Immutable, IntoBytes};

const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const MAP_DELETE_BATCH: u32 = 27;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;

/// Attach before every other program of the hook.
const F_BEFORE: u32 = 1 << 3;

/// The hook of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Tcx {
    Ingress = 46,
    Egress = 47,
}

/// One command of the system call.
fn bpf<A: IntoBytes + Immutable>(command: u32, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is a live, initialised structure whose size is passed along; the kernel treats the fields beyond it as
    // zero. Each caller below keeps alive what the addresses in it point to for the duration of the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    match i32::try_from(result) {
        Ok(result @ 0..) => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bpf_fd<A: IntoBytes + Immutable>(command: u32, attr: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: these commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>().addr() as u64
}

fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    std::ptr::from_mut(of).cast::<u8>().expose_provenance() as u64
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads the value of `key` into `value`, which has the map's value size (for per-CPU maps: times the CPUs). `false`: absent.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = Element {
        map_fd: fd_number(map),
        _pad: 0,
        key: address(key),
        value: address_mut(value),
        flags: 0,
    };
    absent_is_false(bpf(MAP_LOOKUP_ELEM, &mut attr))
}

pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    update_with(map, key, value, 0)
}

/// `false`: there is a row of this key, and it stays as it is.
pub(crate) fn insert_new(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<bool> {
    match update_with(map, key, value, NOEXIST) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

fn update_with(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let mut attr = Element {
        map_fd: fd_number(map),
        _pad: 0,
        key: address(key),
        value: address(value),
        flags,
    };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// `false`: was absent.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attr = Element {
        map_fd: fd_number(map),
        _pad: 0,
        key: address(key),
        value: 0,
        flags: 0,
    };
    absent_is_false(bpf(MAP_DELETE_ELEM, &mut attr))
}

/// Reads the key after `key`, or the first, into `next`; `false`: there is none.
pub(crate) fn next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attr = Element {
        map_fd: fd_number(map),
        _pad: 0,
        key: key.map_or(0, address),
        value: address_mut(next),
        flags: 0,
    };
    absent_is_false(bpf(MAP_GET_NEXT_KEY, &mut attr))
}

fn absent_is_false(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(IntoBytes, Immutable, Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a walk over a hash map has got to; hash maps of any key size use four bytes of it.
pub(crate) type Cursor = Option<[u8; 64]>;

/// Reads the next rows of a hash map: how many were read, and whether there are more. The slices have equal length.
pub(crate) fn lookup_batch<K: IntoBytes + zerocopy::FromBytes, V: IntoBytes + zerocopy::FromBytes>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, bool)> {
    assert_eq!(keys.len(), values.len());
    let mut next = [0; 64];
    let mut attr = Batch {
        in_batch: cursor.as_ref().map_or(0, address),
        out_batch: address_mut(&mut next),
        keys: address_mut(keys),
        values: address_mut(values),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: fd_number(map),
        ..Batch::default()
    };
    let more = absent_is_false(bpf(MAP_LOOKUP_BATCH, &mut attr))?;
    *cursor = Some(next);
    Ok((attr.count as usize, more))
}

/// Writes rows; returns at the first that does not fit.
pub(crate) fn update_batch<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len());
    let mut attr = Batch {
        keys: address(keys),
        values: address(values),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: fd_number(map),
        ..Batch::default()
    };
    bpf(MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Deletes rows; returns how many, and stops short at one that is absent already.
pub(crate) fn delete_batch<K: IntoBytes + Immutable>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<usize> {
    let mut attr = Batch {
        keys: address(keys),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: fd_number(map),
        ..Batch::default()
    };
    absent_is_false(bpf(MAP_DELETE_BATCH, &mut attr))?;
    Ok(attr.count as usize)
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

fn path_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_string(path)?;
    let mut attr = Object {
        path: address(path.as_bytes_with_nul()),
        fd: fd_number(object),
        flags: 0,
    };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let mut attr = Object {
        path: address(path.as_bytes_with_nul()),
        fd: 0,
        flags: 0,
    };
    bpf_fd(OBJ_GET, &mut attr)
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct InfoRequest {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of the kernel's `struct bpf_link_info`, with the fields of a tcx link.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable, zerocopy::FromBytes)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    _pad: u32,
    /// Of the device; 0 once it is gone.
    pub(crate) ifindex: u32,
    pub(crate) attach_type: u32,
}

/// The same of a link to a cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable, zerocopy::FromBytes)]
pub(crate) struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    _pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    _end: u32,
}

impl CgroupLinkInfo {
    /// Of the cgroup: the number of its directory's inode.
    pub(crate) const fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }

    pub(crate) const fn attach_type(&self) -> u32 {
        self.attach_type
    }
}

/// The beginning of the kernel's `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable, zerocopy::FromBytes)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// What the kernel knows of an object. The descriptor must be of the kind that `T` describes.
pub(crate) fn info<T: zerocopy::FromBytes + IntoBytes + Immutable>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::new_zeroed();
    let length = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    let mut attr = InfoRequest {
        fd: fd_number(object),
        length,
        info: address_mut(&mut info),
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct TcxCreate {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    _pad: u32,
    expected_revision: u64,
}

/// Attaches a program as the first of a device's hook.
pub(crate) fn create_tcx_link(program: BorrowedFd<'_>, ifindex: u32, hook: Tcx) -> io::Result<OwnedFd> {
    let mut attr = TcxCreate {
        program_fd: fd_number(program),
        ifindex,
        attach_type: hook as u32,
        flags: F_BEFORE,
        relative_fd: 0,
        _pad: 0,
        expected_revision: 0,
    };
    bpf_fd(LINK_CREATE, &mut attr)
}

/// The hook of a cgroup's sockets: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum SocketHook {
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getpeername4 = 29,
    Getpeername6 = 30,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct CgroupCreate {
    program_fd: u32,
    cgroup_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup, beside others that are there.
pub(crate) fn create_cgroup_link(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    hook: SocketHook,
) -> io::Result<OwnedFd> {
    let mut attr = CgroupCreate {
        program_fd: fd_number(program),
        cgroup_fd: fd_number(cgroup),
        attach_type: hook as u32,
        flags: 0,
    };
    bpf_fd(LINK_CREATE, &mut attr)
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LinkUpdate {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

/// Replaces the program of a link; no packet sees neither or both.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate {
        link_fd: fd_number(link),
        program_fd: fd_number(program),
        flags: 0,
        old_program_fd: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

#[repr(C)]
#[derive(IntoBytes, Immutable, Default)]
struct TestRun {
    program_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
}

/// What a test run returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunOutput {
    /// What the program returned.
    pub retval: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Nanoseconds of one run, averaged over the repetitions.
    pub duration_ns: u32,
}

/// Runs a classifier on a packet, `repeat` times; `context` is the `struct __sk_buff` or its beginning.
///
/// # Errors
///
/// As the kernel says; it wants at least an Ethernet header.
pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: &[u8],
    repeat: u32,
) -> io::Result<TestRunOutput> {
    let mut out = vec![0; packet.len() + 256];
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut attr = TestRun {
        program_fd: fd_number(program),
        data_size_in: size(packet),
        data_size_out: size(&out),
        data_in: address(packet),
        data_out: address_mut(out.as_mut_slice()),
        repeat,
        ctx_size_in: size(context),
        ctx_in: if context.is_empty() { 0 } else { address(context) },
        ..TestRun::default()
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    out.truncate(attr.data_size_out as usize);
    Ok(TestRunOutput {
        retval: attr.retval,
        packet: out,
        duration_ns: attr.duration,
    })
}

/// The index of the device of this name in the calling thread's network namespace.
pub(crate) fn ifindex(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Whether the path lies on a BPF file system; an error if it does not exist.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = path_string(path)?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` is NUL-terminated, `stat` has room for the result.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and has filled it.
    let kind = unsafe { stat.assume_init() }.f_type;
    Ok(i128::from(kind) == i128::from(libc::BPF_FS_MAGIC))
}

/// Lifts the limit on locked memory, against which kernels before 5.11 count maps. Without the privilege nothing happens.
pub(crate) fn lift_memlock_limit() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// Seconds of the monotonic clock.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure outlives the call; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Waits until the descriptor is readable; `false`: the time is over.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: std::time::Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one live element, as the count says.
    match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}
