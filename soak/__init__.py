"""Tests that take longer than the fast ones: faults, bad input and load; see docs/reliability.md.

worker.py   a process that runs command lines and is watched from outside
media.py    a corpus of broken, odd and hostile media
bad.py      runs the command line on every file of the corpus, and on fuzzed files
kill.py     sends SIGKILL at random moments
disk.py     disks that are full and folders that cannot be written
load.py     many viewers, a long video, two runs with one output
same.py     compares runs that must give equal results
table.py    writes docs/reliability.md from docs/reliability.json
advisories.py    known vulnerabilities of the installed packages
"""
