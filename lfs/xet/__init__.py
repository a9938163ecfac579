"""Chunked files over the LFS shelf, as the Xet clients of the Hub send and ask for them.

checking each word of a shard against our own tables
dedup    what is told to those who ask for a chunk
filing   shards: checked, filed, kept
formats  xorbs ↔ bytes: chunks that travel and lie together, proven while they stream
hashes   the names of chunks, xorbs, files and ranges
memory   values that never change, held while there is room
naming   the names of many files, a batch at a time
plan     what of which xorbs makes a range of a file, and how clients are told
proving  bodies of strangers, read by a child process
rebuild  files put together from xorbs, every chunk proven
shelf    a store on which files lie like objects
tables   where the chunks of each xorb lie, held in memory
taking   xorbs come in, by post or by grant
"""
