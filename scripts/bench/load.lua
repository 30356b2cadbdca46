-- wrk's script: requests of a random user each and, where there is a body, with an idempotency key of their own.
-- Arguments behind `--`: method, run id, file of requests (one a line: token, body and, where it is not the target's,
-- path, with tabs between), seed of the choice.
-- Prints one line of JSON behind the word BENCH.

local threads = {}

function setup(thread)
   threads[#threads + 1] = thread
   thread:set("thread_number", #threads)
end

function init(arguments)
   local method, run_id, requests_path, seed = arguments[1], arguments[2], arguments[3], tonumber(arguments[4])
   math.randomseed(seed + thread_number)
   statuses = {}
   sent = 0
   key = run_id .. "-" .. thread_number .. "-"
   -- What does not change from request to request is put together once.
   heads, bodies = {}, {}
   for line in io.lines(requests_path) do
      local token, body, path = line:match("^([^\t]*)\t([^\t]*)\t?(.*)$")
      local about_body = ""
      if body ~= "" then
         about_body = "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n"
      end
      bodies[#bodies + 1] = body
      heads[#heads + 1] = method .. " " .. (path ~= "" and path or wrk.path) .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
         .. "\r\nAuthorization: Bearer " .. token .. "\r\n" .. about_body
   end
end

function request()
   local number = math.random(#heads)
   local head, body = heads[number], bodies[number]
   if body == "" then
      return head .. "\r\n"
   end
   sent = sent + 1
   return head .. "Idempotency-Key: " .. key .. sent .. "\r\n\r\n" .. body
end

function response(status)
   local name = tostring(status)
   statuses[name] = (statuses[name] or 0) + 1
end

function done(summary, latency)
   local totals = {}
   for _, thread in ipairs(threads) do
      for status, count in pairs(thread:get("statuses")) do
         totals[status] = (totals[status] or 0) + count
      end
   end
   local counts = {}
   for status, count in pairs(totals) do
      counts[#counts + 1] = string.format('"%s":%d', status, count)
   end
   local errors = summary.errors
   io.write(string.format(
      'BENCH {"duration_us":%d,"p50_us":%d,"p99_us":%d,"statuses":{%s},' ..
      '"connect_errors":%d,"read_errors":%d,"write_errors":%d,"timeouts":%d}\n',
      summary.duration, latency:percentile(50), latency:percentile(99), table.concat(counts, ","),
      errors.connect, errors.read, errors.write, errors.timeout
   ))
end
