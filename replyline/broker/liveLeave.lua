--[[
  A reader looks no more; the conversation counts as watched for a while longer, for the reader may come back.

  KEYS  1 readers, by when they expire, 2 there while it lingers
  ARGV  1 reader, 2 how long to linger (ms, 0 for not at all)
]]
redis.call('ZREM', KEYS[1], ARGV[1])
local linger = tonumber(ARGV[2])
if linger > redis.call('PTTL', KEYS[2]) and linger > 0 then redis.call('SET', KEYS[2], 1, 'PX', ARGV[2]) end
return 1
