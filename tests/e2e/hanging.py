"""Mounts a file system that answers nothing but the mount itself, until its process is killed.

    hanging.py DIRECTORY

The protocol is that of Linux' include/uapi/linux/fuse.h. Prints a line when the file system is mounted.
"""

import ctypes
import os
import struct
import sys

FUSE_INIT = 26
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"hanging", sys.argv[1].encode(), b"fuse", 0, options) != 0:
    sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
request = os.read(device, 1 << 20)
_, operation, unique = struct.unpack_from("<IIQ", request)
assert operation == FUSE_INIT
# Major and minor version, read-ahead, flags, requests in the background, largest write, time granularity, pages.
answer = struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 32, 0, 0)
os.write(device, struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer)
print("mounted", flush=True)
# Requests stay in the queue of the system: processes that wait for them can be killed.
sys.stdin.read()
