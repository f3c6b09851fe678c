-- Forwarding rule for Orthanc: sends every stable CT series by STOW-RS to the DICOMweb server called "hilum".
--
-- Orthanc's own sender tries once; this rule tries again with growing waits, looks after a restart for what was not sent, and never sends what comes back (a segmentation
-- is no CT). How many slices of a series Hilum has is kept in its metadata 9100, so that nothing is sent twice and late slices are.
-- Needs Orthanc 1.10 or later with the DICOMweb plugin. With 1.11.1 or later set "LuaHeartBeatPeriod": 10 in Orthanc's configuration, which drives the retries; earlier
-- versions have no timer, and retries after the second wait for the next event.

local SERVER    = 'hilum'   -- name of the entry in "DicomWeb" / "Servers"
local MARK      = '9100'    -- user-defined metadata: number of slices delivered
local MIN_COUNT = 1         -- of instances: an Enhanced CT is one; of scouts and single slices Hilum says that they are too few
local MAX_TRIES = 12
local SWEEP_H   = 168       -- after a restart, series of the last so many hours are looked at again

local jobs, waiting = {}, {}   -- job -> { series, n, tries };  series -> { tries, at }

local function get(uri)
  local ok, answer = pcall(RestApiGet, uri, false)
  if ok and answer ~= nil and answer ~= '' then return ParseJson(answer) end
end

local function count(series)
  local statistics = get('/series/' .. series .. '/statistics')
  return statistics and statistics['CountInstances']
end

local function submit(series, tries)
  waiting[series] = nil
  local n = count(series)
  if n == nil then return end   -- deleted meanwhile
  local body = '{"Resources":["' .. series .. '"],"Synchronous":false,"Priority":5,"HttpHeaders":{"X-Hilum-Series-Complete":"true"}}'
  local ok, answer = pcall(RestApiPost, '/dicom-web/servers/' .. SERVER .. '/stow', body, false)
  local job = ok and answer ~= nil and answer ~= '' and ParseJson(answer)['ID'] or nil
  if job then
    jobs[job] = { series = series, n = n, tries = tries }
  else
    waiting[series] = { tries = tries + 1, at = os.time() + 30 }
  end
end

local function start_what_is_due()
  local now, due = os.time(), {}
  for series, wait in pairs(waiting) do
    if wait.at <= now then due[#due + 1] = series end
  end
  for _, series in ipairs(due) do submit(series, waiting[series].tries) end
end

local function wanted(series, tags, metadata)
  if tags['Modality'] ~= 'CT' then return false end
  local n = count(series)
  if n == nil or n < MIN_COUNT then return false end
  return (metadata or {})[MARK] ~= string.format('%d', n)
end

function OnStableSeries(series, tags, metadata)
  for _, job in pairs(jobs) do
    if job.series == series then
      waiting[series] = { tries = 0, at = os.time() + 5 }
      return
    end
  end
  if wanted(series, tags, metadata) then submit(series, 0) end
  start_what_is_due()
end

function OnJobSuccess(id)
  local job = jobs[id]
  if job == nil then return end
  jobs[id] = nil
  pcall(RestApiPut, '/series/' .. job.series .. '/metadata/' .. MARK, string.format('%d', job.n), false)
  print('hilum: sent ' .. job.series .. ' (' .. string.format('%d', job.n) .. ' slices)')
  start_what_is_due()
end

function OnJobFailure(id)
  local job = jobs[id]
  if job == nil then return end
  jobs[id] = nil
  local tries = job.tries + 1
  if tries >= MAX_TRIES then
    print('hilum: GAVE UP on ' .. job.series)
    return
  end
  waiting[job.series] = { tries = tries, at = os.time() + math.min(600, 2 ^ tries) }
  print('hilum: try ' .. string.format('%d', tries) .. ' failed for ' .. job.series)
  if tries <= 2 and LuaHeartBeat == nil then
    os.execute('sleep 2')
    waiting[job.series].at = 0
  end
  start_what_is_due()
end

function OnHeartBeat()
  LuaHeartBeat = true
  start_what_is_due()
end

-- A series that was not yet stable when Orthanc stopped never becomes stable again, and jobs under way are lost: look at what came lately.
function Initialize()
  local ok, answer = pcall(RestApiPost, '/tools/find', '{"Level":"Series","Expand":true,"Query":{"Modality":"CT"}}', false)
  if not ok or answer == nil or answer == '' then return end
  local now = os.time()
  -- As Orthanc writes LastUpdate, in UTC: the order of such texts is that of their times.
  local since = os.date('!%Y%m%dT%H%M%S', now - SWEEP_H * 3600)
  for _, found in ipairs(ParseJson(answer)) do
    local recent = (found['LastUpdate'] or '') >= since
    local metadata = {}
    local known, mark = pcall(RestApiGet, '/series/' .. found['ID'] .. '/metadata/' .. MARK, false)
    if known and mark ~= nil then metadata[MARK] = mark end
    if recent and wanted(found['ID'], found['MainDicomTags'], metadata) then
      waiting[found['ID']] = { tries = 0, at = now }
    end
  end
  start_what_is_due()
end
