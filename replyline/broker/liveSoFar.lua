--[[
  What is being written, as far as it is: index and text of one moment.

  KEYS  1 who writes, 2 the text so far
  Gives {stream, next index, text}, or nil.
]]
local state = redis.call('HMGET', KEYS[1], 'stream', 'next')
if not state[1] then return false end
return {state[1], tonumber(state[2]), redis.call('GET', KEYS[2]) or ''}
