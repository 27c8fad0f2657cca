// Flows on explicit links and routes in SimGrid, which tells when each of them ends.
//
// Input: hosts, links, flows; a line for each link (bytes/s, seconds), then for each flow
// (source, target, bytes, start, number of links, links). Flows come in the order of their starts.
// Output: processor seconds of the simulation, then the finish time of each flow, one a line.
#include <simgrid/s4u.hpp>

#include <cstdio>
#include <ctime>
#include <iostream>
#include <set>
#include <string>
#include <vector>

namespace sg4 = simgrid::s4u;

struct Flow {
  int source, target;
  double bytes, start;
};

static std::vector<sg4::CommPtr> messages;

static void send_all(const std::vector<Flow>& flows, const std::vector<sg4::Host*>& hosts)
{
  for (const auto& flow : flows) {
    if (flow.start > sg4::Engine::get_clock())
      sg4::this_actor::sleep_until(flow.start);
    messages.push_back(sg4::Comm::sendto_async(hosts[flow.source], hosts[flow.target], flow.bytes));
  }
  for (auto& message : messages)
    message->wait();
}

int main(int argc, char** argv)
{
  sg4::Engine engine(&argc, argv);
  int host_count, link_count, flow_count;
  std::cin >> host_count >> link_count >> flow_count;
  auto* zone = sg4::create_full_zone("net");
  std::vector<sg4::Link*> links;
  for (int i = 0; i < link_count; i++) {
    double bandwidth, latency;
    std::cin >> bandwidth >> latency;
    links.push_back(zone->create_link("l" + std::to_string(i), bandwidth)->set_latency(latency));
    links.back()->seal();
  }
  std::vector<sg4::Host*> hosts;
  for (int i = 0; i < host_count; i++)
    hosts.push_back(zone->create_host("h" + std::to_string(i), 1e9)->seal());
  std::vector<Flow> flows;
  std::set<std::pair<int, int>> routed;
  for (int i = 0; i < flow_count; i++) {
    Flow flow;
    int hops;
    std::cin >> flow.source >> flow.target >> flow.bytes >> flow.start >> hops;
    std::vector<sg4::LinkInRoute> route;
    for (int hop = 0, link; hop < hops; hop++) {
      std::cin >> link;
      route.emplace_back(links[link]);
    }
    flows.push_back(flow);
    if (routed.emplace(flow.source, flow.target).second)
      zone->add_route(hosts[flow.source]->get_netpoint(), hosts[flow.target]->get_netpoint(), nullptr, nullptr,
                      route, false);
  }
  zone->seal();
  sg4::Actor::create("sender", hosts[0], send_all, flows, hosts);
  const std::clock_t begin = std::clock();
  engine.run();
  std::printf("%.6f\n", double(std::clock() - begin) / CLOCKS_PER_SEC);
  for (const auto& message : messages)
    std::printf("%.17g\n", message->get_finish_time());
  std::fflush(stdout);
  std::_Exit(0); // SimGrid frees what is left one by one, which takes longer than all before
}
