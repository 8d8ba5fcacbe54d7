"""What takes longer than the fast tests: faults, bad input and load; see docs/reliability.md.

worker.py   a process that runs command lines, watched from outside
media.py    a corpus of broken, odd and hostile media
bad.py      every file of it, and fuzzed text, through the command line
kill.py     SIGKILL at random moments
disk.py     disks that are full and folders that cannot be written
load.py     many viewers, a long video, two runs with one output
same.py     same in, same out
table.py    docs/reliability.md from docs/reliability.json
advisories.py    known vulnerabilities of the installed packages
"""
