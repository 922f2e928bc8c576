--[[
  A stream is written no more; where another has taken over, that one stays.

  KEYS  1 who writes, 2 the text so far
  ARGV  1 stream
]]
if redis.call('HGET', KEYS[1], 'stream') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1], KEYS[2])
