"""What runs on the server, each as one step that no other client can get between.

Three more keys hold the bookkeeping: a sorted set of the entries by the time of their last use, a hash of
their sizes, and the sum of the sizes. Keys of all scripts: 1 the sorted set, 2 the sizes, 3 the sum. Arguments of all:
1 the prefix of the values' keys, 2 the milliseconds after which an unused entry goes (0 for never).
"""

from __future__ import annotations

COMMON = """
local used, sizes, total = KEYS[1], KEYS[2], KEYS[3]
local values, ttl = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function drop(entry)
    redis.call('UNLINK', values .. entry)
    redis.call('ZREM', used, entry)
    local size = redis.call('HGET', sizes, entry)
    if size then
        redis.call('HDEL', sizes, entry)
        redis.call('DECRBY', total, size)
    end
end

local function touch(entry, size)
    redis.call('ZADD', used, now, entry)
    if redis.call('HSETNX', sizes, entry, size) == 1 then
        redis.call('INCRBY', total, size)
    end
    if ttl > 0 then
        redis.call('PEXPIRE', values .. entry, ttl)
    end
end

local function expire()
    if ttl > 0 then
        for _, entry in ipairs(redis.call('ZRANGEBYSCORE', used, '-inf', now - ttl * 1000)) do
            drop(entry)
        end
    end
end
"""

GET = (
    COMMON
    + """
local entry = ARGV[3]
local data = redis.call('GET', values .. entry)
if data then
    touch(entry, #data)
else
    drop(entry)
end
return data
"""
)
"""Argument 3: the entry. Gives its bytes or nil, and counts as a use."""

PUT = (
    COMMON
    + """
local entry, data, most_entries, most_bytes = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
if redis.call('EXISTS', used) == 0 then
    redis.call('DEL', sizes, total)
end
expire()
drop(entry)
if most_entries == 0 or #data > most_bytes then
    return 0
end
redis.call('SET', values .. entry, data)
touch(entry, #data)
while (most_entries > 0 and redis.call('ZCARD', used) > most_entries)
        or tonumber(redis.call('GET', total)) > most_bytes do
    local oldest = redis.call('ZRANGE', used, 0, 0)[1]
    if not oldest or oldest == entry then
        break
    end
    drop(oldest)
end
return 1
"""
)
"""Arguments 3 to 6: the entry, its bytes, most entries (negative for no limit), most bytes."""

DROP = COMMON + "drop(ARGV[3])\nreturn 1\n"
"""Argument 3: the entry."""

COUNT = COMMON + "expire()\nreturn redis.call('ZCARD', used)\n"
"""Gives the number of entries."""

BYTES = COMMON + "expire()\nreturn tonumber(redis.call('GET', total) or 0)\n"
"""Gives the bytes of all entries."""
