--[[
  A piece of the text that a stream writes: kept for who comes later, and told to who listens. The reader of the one can tell by
  the index which of the others it has already.

  KEYS  1 who writes, 2 the text so far
  ARGV  1 stream, 2 piece, 3 most bytes of the whole text, 4 time to live (ms), 5 channel
  Gives 1, or 0 where another stream (or none) writes, or the text would be too long.
]]
if redis.call('HGET', KEYS[1], 'stream') ~= ARGV[1] then return 0 end
if redis.call('STRLEN', KEYS[2]) + #ARGV[2] > tonumber(ARGV[3]) then return 0 end

local index = redis.call('HINCRBY', KEYS[1], 'next', 1) - 1
redis.call('APPEND', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PUBLISH', ARGV[5], cmsgpack.pack({'w', ARGV[1], index, ARGV[2]}))
return 1
