--[[
  A stream begins to be written, and takes the conversation over from whatever was written there before.

  KEYS  1 who writes, 2 the text so far
  ARGV  1 stream, 2 time to live (ms)
]]
redis.call('HSET', KEYS[1], 'stream', ARGV[1], 'next', 0) -- first: where memory is full this is refused, and nothing half done
redis.call('DEL', KEYS[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
