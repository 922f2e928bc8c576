--[[
  Removes what a script that was refused in its middle left of a job: a hash whose id is in no list.

  Looking and removing are one step: a job that another process adds in between is not removed.

  KEYS  1-3 'completed', 'failed', 'delayed'; 4-6 'active', 'wait', 'paused'; 7-8 'waiting-children', 'prioritized'; 9 the job
  ARGV  the job's id
  Gives 1 if the job is in no list, else 0.
]]
for _, number in ipairs({1, 2, 3, 7, 8}) do
  if redis.call('ZSCORE', KEYS[number], ARGV[1]) then return 0 end
end
for number = 4, 6 do
  if redis.call('LPOS', KEYS[number], ARGV[1]) then return 0 end
end
redis.call('DEL', KEYS[9])
return 1
