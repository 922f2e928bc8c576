--[[
  Whether anybody looks at a conversation, or did a moment ago.

  KEYS  1 readers, by when they expire, 2 there while it lingers
  Gives 1 or 0.
]]
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZCOUNT', KEYS[1], string.format('(%.0f', now), '+inf') > 0 and 1 or 0
