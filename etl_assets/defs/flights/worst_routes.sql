-- Routes with at least a hundred arrivals, the worst first. Four airports of Puerto Rico and the Virgin Islands are not
-- in the list of airports: their routes stay, without a name.
WITH routes AS (
    SELECT
        origin,
        dest,
        count(*) AS flights,
        count(*) FILTER (WHERE cancelled) AS cancelled,
        count(arr_delay) AS arrivals,
        avg(arr_delay) AS mean_arrival_delay,
        avg(CASE WHEN arr_delay >= 15 THEN 100.0 WHEN arr_delay IS NOT NULL THEN 0.0 END) AS late_percent
    FROM silver.flights
    GROUP BY origin, dest
    HAVING count(arr_delay) >= 100
)

SELECT
    row_number() OVER (ORDER BY r.mean_arrival_delay DESC, r.origin, r.dest) AS rank,
    r.origin,
    r.dest,
    a.name AS destination,
    r.flights,
    r.cancelled,
    r.arrivals,
    round(r.mean_arrival_delay, 1) AS mean_arrival_delay,
    round(r.late_percent, 1) AS late_percent
FROM routes AS r
LEFT JOIN silver.airports AS a ON r.dest = a.faa
