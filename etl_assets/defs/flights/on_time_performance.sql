-- On time means: arrived less than 15 minutes after schedule. A cancelled or diverted flight did not arrive on time.
SELECT
    f.carrier,
    a.name AS airline,
    CAST(date_trunc('month', f.flight_date) AS DATE) AS month,
    count(*) AS flights,
    count(*) FILTER (WHERE f.cancelled) AS cancelled,
    count(*) FILTER (WHERE NOT f.cancelled AND f.arr_delay IS NULL) AS diverted,
    count(*) FILTER (WHERE f.arr_delay < 15) AS on_time,
    round(100.0 * count(*) FILTER (WHERE f.arr_delay < 15) / count(*), 1) AS on_time_percent,
    round(avg(f.dep_delay), 1) AS mean_departure_delay,
    round(avg(f.arr_delay), 1) AS mean_arrival_delay
FROM silver.flights AS f
INNER JOIN silver.airlines AS a ON f.carrier = a.carrier
GROUP BY f.carrier, a.name, CAST(date_trunc('month', f.flight_date) AS DATE)
